//! The JSON schema of the file, made from the options themselves (<https://json-schema.org>, draft 7, which the editors
//! know).

use crate::cli::run::meaning;
use crate::config::options::{InFile, RunOption};
use serde_json::{Map, Value, json};

/// The schema.
pub fn text() -> String {
    serde_json::to_string_pretty(&schema()).unwrap_or_default()
}

fn schema() -> Value {
    let options = options();
    let of_apps = [
        (
            "enabled",
            json!({ "type": "boolean", "description": "Whether it is started when no app is named", "default": true }),
        ),
        (
            "depends_on",
            json!({ "type": "array", "items": { "type": "string" }, "description": "The apps that serve before it is started" }),
        ),
    ];
    let with = |more: &[(&str, Value)]| {
        let mut all = options.clone();
        all.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        json!({ "type": "object", "properties": all, "additionalProperties": false })
    };
    let apps = |description: &str| {
        let app = json!({ "$ref": "#/definitions/app" });
        json!({ "type": "object", "additionalProperties": app, "description": description })
    };
    let profile = with(&[("app", apps("Options of one app in this profile"))]);
    let profiles = json!({
        "type": "object",
        "additionalProperties": { "$ref": "#/definitions/profile" },
        "description": "Layers that --profile lays over the file",
    });
    let mut whole = with(&[("app", apps("The apps: [app.NAME]")), ("profile", profiles)]);
    if let Some(whole) = whole.as_object_mut() {
        whole.insert("$schema".to_owned(), json!("http://json-schema.org/draft-07/schema#"));
        whole.insert("title".to_owned(), json!("maitred.toml"));
        whole.insert("definitions".to_owned(), json!({ "app": with(&of_apps), "profile": profile }));
    }
    whole
}

fn options() -> Map<String, Value> {
    let mut all = Map::new();
    for (option, argument) in meaning::options().into_iter().filter(|(option, _)| option.in_file != InFile::Not) {
        let mut value = form(option, &argument);
        if let (Some(value), Some(help)) = (value.as_object_mut(), argument.get_help()) {
            value.insert("description".to_owned(), json!(help.to_string()));
        }
        all.insert(option.name.to_owned(), value);
    }
    let files = all.get("env-file").cloned().unwrap_or_default();
    all.insert("env_file".to_owned(), files);
    let command = json!({
        "type": "array", "items": { "type": "string" }, "minItems": 1,
        "description": "The server and its arguments; {slot}, {worker}, {generation}, {port} and {fd} are replaced",
    });
    all.insert("command".to_owned(), command);
    all
}

fn form(option: &RunOption, argument: &clap::Arg) -> Value {
    let known: Vec<String> = argument.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    let one = match option.in_file {
        InFile::Value if !known.is_empty() => json!({ "enum": known }),
        _ => json!({ "type": ["string", "integer"] }),
    };
    match option.in_file {
        InFile::Value => one,
        InFile::Values => json!({ "anyOf": [one, { "type": "array", "items": one }] }),
        InFile::Paths => json!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] }),
        InFile::List => json!({ "anyOf": [one, { "type": "array", "items": { "type": "integer" } }] }),
        InFile::Count => json!({ "type": "integer", "minimum": 0, "maximum": 9 }),
        InFile::Switch => json!({ "type": "boolean" }),
        InFile::SwitchOrValue => json!({ "type": ["boolean", "string", "integer"] }),
        InFile::Table => json!({ "type": "object", "additionalProperties": { "type": ["string", "integer"] } }),
        InFile::Not => Value::Bool(false),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_schema_beside_the_code_is_what_the_options_say() {
        let beside = include_str!("../../config/maitred.schema.json");
        assert!(beside.trim_end() == super::text(), "maitred config schema > src/config/maitred.schema.json");
    }
}
