//! Tables of the manual that are made of what was run.

use super::root;

const END: &str = "<!-- end -->\n";

/// Whether a chapter has these tables in their places, each after the line that it begins with. With
/// `MAITRED_WRITE_TABLE` set, it has from then on.
///
/// # Errors
/// What is to be done about a difference.
pub fn compare_with_manual(chapter: &str, tables: &[(&str, String)]) -> Result<(), String> {
    let path = root().join("src/manual").join(chapter);
    let present = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut made = present.clone();
    for (begin, table) in tables {
        let parts = made.split_once(begin).and_then(|(before, rest)| Some((before, rest.split_once(END)?)));
        let (before, (_, after)) = parts.ok_or_else(|| format!("{chapter} has no place for {begin}"))?;
        made = format!("{before}{begin}{table}{END}{after}");
    }
    if made == present {
        println!("what was run is what {chapter} says");
        return Ok(());
    }
    if std::env::var_os("MAITRED_WRITE_TABLE").is_some() {
        return std::fs::write(&path, made).map_err(|error| error.to_string());
    }
    let tables: Vec<_> = tables.iter().map(|(_, table)| table.as_str()).collect();
    Err(format!("{chapter} does not say what was run; write it with MAITRED_WRITE_TABLE=1\n{}", tables.join("\n")))
}
