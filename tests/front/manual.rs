//! The README and the manual do what they say.

use crate::support::*;

#[test]
fn a_stranger_who_types_what_the_readme_says_sees_what_it_shows() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let typed = readme.lines().find_map(|line| line.strip_prefix("    cargo run --release -- ")).unwrap();
    // The port may be taken here.
    let words: Vec<&str> = typed.split(' ').map(|word| if word == "8080" { "0" } else { word }).collect();
    assert_eq!(words[..3], ["-w", "4", "--"], "{typed}");
    let maitred = Maitred::start(&words).ready(4);
    let bodies = (0..8).map(|_| match request(maitred.address()) {
        Reply::Body(body) => body,
        other => panic!("{other:?}"),
    });
    for (body, slot) in bodies.zip([0, 1, 2, 3].into_iter().cycle()) {
        assert_eq!(body, format!("slot {slot}, process {}\n", maitred.pid(slot)));
    }
    maitred.stop();
}

#[test]
fn help_shows_commands_and_chapters() {
    let said = |words: &[&str]| {
        let output = run(words);
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, text, _) = said(&["help"]);
    assert!(code == Some(0) && text.contains("Chapters of the manual") && text.contains("  policies "), "{text}");
    let (code, text, _) = said(&["help", "modes"]);
    assert!(code == Some(0) && text.starts_with("MODES\n") && !text.contains("\x1b["), "{text}");
    let (code, text, _) = said(&["help", "run"]);
    assert!(code == Some(0) && text.contains("--max-open-per-worker"), "{text}");
    let (code, _, error) = said(&["help", "nonsense"]);
    assert!(code == Some(2) && error.contains("no chapter nonsense") && error.contains("policies"), "{error}");
}

#[test]
fn packagers_get_man_pages_and_completions() {
    let directory = scratch("package");
    assert!(run(&["package", directory.to_str().unwrap()]).status.success());
    let page = |path: &str| std::fs::read_to_string(directory.join(path)).unwrap();
    assert!(page("man1/maitred-run.1").contains("\\-\\-bind"));
    assert!(page("man7/maitred-modes.7").contains(".SH NAME\nmaitred\\-modes"));
    for name in ["maitred.bash", "_maitred", "maitred.fish"] {
        assert!(page(&format!("completions/{name}")).contains("max-open-per-source"), "{name}");
    }
    std::fs::remove_dir_all(directory).unwrap();
}
