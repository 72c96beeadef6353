//! The screen of `maitred top`. What matters is said in words or numbers; colours only help, and are blue, yellow and
//! magenta, which also those can tell apart who do not see red and green.

use super::model::{Model, Shown, View};
use crate::cli::table::seconds;
use crate::control::status::READY;
use crate::core::visible;
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Sparkline, Table, TableState};

/// Keys, as the help and the last line show them.
const KEYS: [(&str, &str); 13] = [
    ("↑ ↓  j k", "choose an app"),
    ("g G", "the first, the last"),
    ("Enter", "its workers, and back"),
    ("l", "its last lines, and back"),
    ("Esc", "all apps"),
    ("r", "reload: new workers first"),
    ("R", "restart: old workers first"),
    ("+ -", "one worker more, one fewer"),
    ("s", "stop it"),
    ("o", "another order"),
    ("? h", "this help"),
    ("q", "quit"),
    ("Ctrl-C", "quit"),
];
/// The columns of the list of apps, from left to right, with their widths.
const APPS: [(&str, u16); 11] = [
    ("NAME", 14),
    ("STATE", 9),
    ("WORKERS", 7),
    ("CONN/S", 7),
    ("OPEN", 6),
    ("WAIT", 5),
    ("CPU", 6),
    ("RSS", 8),
    ("RESTARTS", 8),
    ("UP", 6),
    ("ADDRESSES", 22),
];
/// What a narrow terminal does without, the least important first.
const SPARED_APPS: [&str; 8] = ["ADDRESSES", "UP", "RESTARTS", "WAIT", "OPEN", "RSS", "CPU", "STATE"];
/// The columns of the workers of one app.
const WORKERS: [(&str, u16); 10] = [
    ("SLOT", 5),
    ("PID", 8),
    ("GEN", 4),
    ("STATE", 9),
    ("TAKEN/S", 8),
    ("OPEN", 6),
    ("WAIT", 5),
    ("CPU", 6),
    ("RSS", 8),
    ("RESTARTS", 8),
];
const SPARED_WORKERS: [&str; 6] = ["GEN", "RESTARTS", "WAIT", "RSS", "OPEN", "CPU"];
/// Rows of the graph, with its frame, and the rows that a screen must have to show it.
const GRAPH: u16 = 5;
const GRAPH_FROM: u16 = 16;
/// Rows of the last lines below the list, with their frame, and the rows that a screen must have to show them.
const BELOW: u16 = 7;
const BELOW_FROM: u16 = 22;

/// Draws all.
pub fn draw(frame: &mut Frame<'_>, model: &Model) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)]).areas(frame.area());
    frame.render_widget(title(model), head);
    match model.view {
        View::Help => help(frame, body),
        View::Logs => lines(frame, model, body),
        View::Apps | View::Workers => {
            let graph = if body.height >= GRAPH_FROM { GRAPH } else { 0 };
            let below = if body.height >= BELOW_FROM { BELOW } else { 0 };
            let [list, graph, below] =
                Layout::vertical([Constraint::Min(1), Constraint::Length(graph), Constraint::Length(below)])
                    .areas(body);
            match (model.view, model.chosen()) {
                (View::Workers, Some((_, app))) => workers(frame, app, list),
                _ => apps(frame, model, list),
            }
            if graph.height > 0 {
                rates(frame, model, graph);
            }
            if below.height > 0 {
                lines(frame, model, below);
            }
        }
    }
    frame.render_widget(last_line(model), foot);
}

fn title(model: &Model) -> Paragraph<'static> {
    let running = model.apps.iter().filter(|app| app.row.pid.is_some()).count();
    let rate: u64 = model.apps.iter().map(Shown::rate).sum();
    // A sum of nothing would be -0.
    let cpu = model.apps.iter().fold(0.0, |sum, app| sum + app.cpu);
    let text = format!(
        " maitred  {running} of {} apps run  {rate} conn/s  CPU {cpu:.0}%  by {}",
        model.apps.len(),
        model.sort.name()
    );
    Paragraph::new(text).style(Style::new().add_modifier(Modifier::REVERSED))
}

fn last_line(model: &Model) -> Paragraph<'static> {
    let text = match (&model.to_stop, &model.message) {
        (Some(name), _) => format!(" stop {}? y stops it, any other key does not", visible::line(name)),
        (None, Some(message)) => format!(" {}", visible::line(message)),
        (None, None) => " ? help  q quit  Enter workers  l logs  r reload  + - scale  s stop  o order".to_owned(),
    };
    let style = if model.to_stop.is_some() { strong(Color::Yellow) } else { Style::new() };
    Paragraph::new(text).style(style)
}

/// The columns that fit.
fn fitting(all: &[(&'static str, u16)], spared: &[&str], width: u16) -> Vec<(&'static str, u16)> {
    let mut columns = all.to_vec();
    let needs = |columns: &[(&str, u16)]| columns.iter().map(|(_, width)| width + 1).sum::<u16>();
    for name in spared {
        if needs(&columns) <= width + 1 {
            break;
        }
        columns.retain(|(column, _)| column != name);
    }
    // What is left over goes to the last column.
    let left = (width + 1).saturating_sub(needs(&columns));
    if let Some((name, last)) = columns.last_mut()
        && *name == "ADDRESSES"
    {
        *last += left;
    }
    columns
}

fn table<'a>(columns: &[(&'static str, u16)], rows: Vec<Row<'a>>) -> Table<'a> {
    let header = columns.iter().map(|(name, _)| aligned(name, (*name).to_owned()));
    Table::new(rows, columns.iter().map(|(_, width)| Constraint::Length(*width)))
        .header(Row::new(header).style(Style::new().add_modifier(Modifier::BOLD)))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
}

/// Numbers stand to the right.
fn aligned(column: &str, text: String) -> Cell<'static> {
    let left = ["NAME", "STATE", "ADDRESSES"].contains(&column);
    Cell::from(Line::from(text).alignment(if left { Alignment::Left } else { Alignment::Right }))
}

fn apps(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    if model.apps.is_empty() {
        let said = if model.asked { " no app runs; start one with: maitred start -- COMMAND" } else { " asking" };
        return frame.render_widget(Paragraph::new(said), area);
    }
    let columns = fitting(&APPS, &SPARED_APPS, area.width);
    let rows = model.apps.iter().map(|app| {
        let cells = columns.iter().map(|(column, _)| aligned(column, of_app(column, app)));
        Row::new(cells).style(of_state(app.row.state))
    });
    let rows = rows.collect();
    let mut state = TableState::new().with_selected(model.chosen().map(|(at, _)| at));
    frame.render_stateful_widget(table(&columns, rows), area, &mut state);
}

fn of_app(column: &str, app: &Shown) -> String {
    let row = &app.row;
    let (open, waiting) = app.open_and_waiting();
    match (column, row.pid) {
        ("NAME", _) => visible::line(&row.name).into_owned(),
        ("STATE", _) => row.state.to_owned(),
        (_, None) => "-".to_owned(),
        ("WORKERS", _) => format!("{}/{}", row.workers_ready, row.workers_wanted),
        ("CONN/S", _) => app.rate().to_string(),
        ("OPEN", _) => open.to_string(),
        ("WAIT", _) => waiting.to_string(),
        ("CPU", _) => format!("{:.0}%", app.cpu),
        ("RSS", _) => memory(row.rss_bytes),
        ("RESTARTS", _) => row.restarts.to_string(),
        ("UP", _) => seconds(row.uptime_s),
        _ => row.addresses.iter().map(|address| visible::line(address)).collect::<Vec<_>>().join(" "),
    }
}

fn workers(frame: &mut Frame<'_>, app: &Shown, area: Rect) {
    let block = Block::new().borders(Borders::TOP).title(format!(" {} ", visible::line(&app.row.name)));
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let Some(status) = &app.status else {
        return frame.render_widget(Paragraph::new(format!(" it is {}", app.row.state)), inner);
    };
    let columns = fitting(&WORKERS, &SPARED_WORKERS, inner.width);
    let rows = status.workers.iter().map(|worker| {
        let (cpu, taken) = worker.id.and_then(|id| app.workers.get(&id).copied()).unwrap_or_default();
        let cells = columns.iter().map(|&(column, _)| {
            let text = match column {
                "SLOT" => worker.slot.to_string(),
                "PID" => worker.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
                "GEN" => worker.generation.to_string(),
                "STATE" => visible::line(&worker.state).into_owned(),
                "TAKEN/S" => format!("{taken:.0}"),
                "OPEN" => worker.open.to_string(),
                "WAIT" => worker.queued.to_string(),
                "CPU" => format!("{cpu:.0}%"),
                "RSS" => memory(worker.rss_bytes),
                _ => worker.restarts.to_string(),
            };
            aligned(column, text)
        });
        Row::new(cells).style(of_state(&worker.state))
    });
    let rows = rows.collect();
    frame.render_widget(table(&columns, rows), inner);
}

/// Connections a second of the chosen app.
fn rates(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let Some((_, app)) = model.chosen() else { return };
    let most = app.rates.iter().copied().max().unwrap_or_default();
    let name = visible::line(&app.row.name);
    let block = Block::new().borders(Borders::TOP).title(format!(" {name}: {} conn/s, at most {most} ", app.rate()));
    let width = usize::from(area.width);
    let last: Vec<u64> = app.rates.iter().rev().take(width).rev().copied().collect();
    frame.render_widget(Sparkline::default().block(block).data(last).style(Style::new().fg(Color::Blue)), area);
}

/// The last lines of the chosen app, as many as fit.
fn lines(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let Some((_, app)) = model.chosen() else { return };
    let block = Block::new().borders(Borders::TOP).title(format!(" {}: last lines ", visible::line(&app.row.name)));
    let room = usize::from(block.inner(area).height);
    let all = model.last_lines();
    let shown = all.iter().skip(all.len().saturating_sub(room)).map(|line| {
        let from =
            line.slot.map_or_else(|| line.stream.name().to_owned(), |slot| format!("{} {slot}", line.stream.name()));
        let text = visible::line(&line.line).into_owned();
        Line::from(vec![Span::styled(format!("{from:>6}| "), Style::new().fg(Color::Blue)), Span::raw(text)])
    });
    let shown: Vec<Line<'_>> = shown.collect();
    let paragraph = if shown.is_empty() { Paragraph::new(" none yet") } else { Paragraph::new(shown) };
    frame.render_widget(paragraph.block(block), area);
}

fn help(frame: &mut Frame<'_>, area: Rect) {
    let rows = KEYS.iter().map(|(keys, what)| Line::from(vec![strong_span(format!(" {keys:<10}")), Span::raw(*what)]));
    frame.render_widget(Paragraph::new(rows.collect::<Vec<_>>()), area);
}

fn strong_span(text: String) -> Span<'static> {
    Span::styled(text, Style::new().add_modifier(Modifier::BOLD))
}

fn strong(colour: Color) -> Style {
    Style::new().fg(colour).add_modifier(Modifier::BOLD)
}

fn of_state(state: &str) -> Style {
    match state {
        READY => Style::new(),
        "stopped" => Style::new().add_modifier(Modifier::DIM),
        "failed" | "silent" | "stalled" => strong(Color::Magenta),
        _ => strong(Color::Yellow),
    }
}

fn memory(bytes: u64) -> String {
    match bytes {
        0..1_000_000_000 => format!("{:.1}M", bytes as f64 / 1e6),
        _ => format!("{:.1}G", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests;
