use super::*;
use crate::cli::apps::list::{Row as ListRow, Surveyed};
use crate::cli::top::model::Command;
use crate::control::{Request, Size};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::time::{Duration, Instant};

fn surveyed(name: &str, accepted: u64) -> Surveyed {
    let row = ListRow { pid: Some(7), accepted, ..ListRow::without_status(name.to_owned(), "ready") };
    Surveyed { row, control: format!("/run/{name}.sock").into(), status: None }
}

fn model() -> Model {
    let mut model = Model::default();
    let now = Instant::now();
    model.surveyed(now, vec![surveyed("api", 0), surveyed("web", 100)]);
    model.surveyed(now + Duration::from_secs(2), vec![surveyed("api", 0), surveyed("web", 300)]);
    model
}

fn press(model: &mut Model, key: KeyCode) -> Option<Command> {
    model.key(KeyEvent::new(key, KeyModifiers::NONE))
}

fn screen(model: &Model, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model)).unwrap();
    let buffer = terminal.backend().buffer().clone();
    let rows = (0..height).map(|y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>());
    rows.map(|row| row.trim_end().to_owned() + "\n").collect()
}

#[test]
fn apps_are_shown_with_their_rates_at_any_size() {
    let model = model();
    let text = screen(&model, 80, 24);
    assert!(text.contains("2 of 2 apps run  100 conn/s"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("web") && line.contains("100")), "{text}");
    assert!(text.contains("api: 0 conn/s") && text.contains("api: last lines"), "{text}");
    for (width, height) in [(30, 8), (10, 3), (1, 1), (200, 60)] {
        screen(&model, width, height);
    }
    let narrow = screen(&model, 40, 10);
    assert!(narrow.contains("NAME") && narrow.contains("CONN/S") && !narrow.contains("ADDRESSES"), "{narrow}");
}

#[test]
fn keys_choose_and_act_on_the_chosen_app() {
    let mut model = model();
    press(&mut model, KeyCode::Char('j'));
    let asks = |command: Option<Command>| match command {
        Some(Command::Ask { name, request, .. }) => (name, request),
        other => panic!("{other:?}"),
    };
    assert_eq!(asks(press(&mut model, KeyCode::Char('+'))), ("web".to_owned(), Request::Scale { to: Size::By(1) }));
    assert!(matches!(asks(press(&mut model, KeyCode::Char('r'))).1, Request::Reload { .. }));
    // A stop has to be confirmed.
    assert_eq!(press(&mut model, KeyCode::Char('s')), None);
    assert!(screen(&model, 80, 24).contains("stop web?"));
    assert_eq!(press(&mut model, KeyCode::Char('n')), None);
    assert_eq!(press(&mut model, KeyCode::Char('y')), None);
    press(&mut model, KeyCode::Char('s'));
    assert_eq!(asks(press(&mut model, KeyCode::Char('y'))), ("web".to_owned(), Request::Stop));
    // The chosen one stays chosen in another order.
    press(&mut model, KeyCode::Char('o'));
    assert_eq!(model.apps[0].row.name, "web");
    assert_eq!(model.chosen().unwrap().1.row.name, "web");
    press(&mut model, KeyCode::Char('?'));
    assert!(screen(&model, 80, 24).contains("new workers first"));
    press(&mut model, KeyCode::Esc);
    assert_eq!(model.view, View::Apps);
    assert_eq!(press(&mut model, KeyCode::Char('q')), Some(Command::Quit));
    assert_eq!(model.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Some(Command::Quit));
}

#[test]
fn where_nothing_runs_that_is_said() {
    let mut model = Model::default();
    assert!(screen(&model, 80, 24).contains("asking"));
    model.surveyed(Instant::now(), Vec::new());
    assert!(screen(&model, 80, 24).contains("no app runs"));
    for key in ['r', '+', 's', 'y', 'j', 'k', 'l'] {
        assert_eq!(press(&mut model, KeyCode::Char(key)), None);
    }
    screen(&model, 80, 24);
}
