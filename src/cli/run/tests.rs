use super::meaning::Again;
use crate::cli::name;
use std::ffi::OsStr;

#[test]
fn the_table_of_options_has_every_option_and_how_it_stands_in_a_file() {
    use crate::config::options::{InFile, OPTIONS};
    let mut command = <Again as clap::CommandFactory>::command();
    command.build();
    let shown = command.get_arguments().filter(|option| !option.is_hide_set());
    let names = shown.filter_map(clap::Arg::get_long).filter(|name| *name != "help");
    assert_eq!(names.collect::<Vec<_>>(), OPTIONS.iter().map(|option| option.name).collect::<Vec<_>>());
    for option in OPTIONS {
        let found = command.get_arguments().find(|arg| arg.get_long() == Some(option.name)).unwrap();
        let value = found.get_num_args().unwrap_or_default();
        let expected = match option.in_file {
            InFile::Count => matches!(found.get_action(), clap::ArgAction::Count),
            InFile::Switch => value.max_values() == 0,
            InFile::SwitchOrValue => value.min_values() == 0 && value.max_values() == 1,
            InFile::Values | InFile::Paths | InFile::Table => matches!(found.get_action(), clap::ArgAction::Append),
            InFile::Value | InFile::List | InFile::Not => true,
        };
        assert!(expected, "{}: {value:?}", option.name);
    }
}

#[test]
fn a_name_comes_from_the_command() {
    for (command, name) in [("node", "node"), ("./srv.py", "srv.py"), ("/a/b c", "b_c"), ("..", "maitred"), ("/", "_")]
    {
        assert_eq!(name::of_command(OsStr::new(command)), name, "{command}");
    }
}
