//! This version understands what each version wrote.

use super::*;
use serde_json::Value;

/// What each version wrote, for example a master with two workers and three addresses. A version that writes something
/// else keeps the file of the one before and adds its own.
const WRITTEN: [(&str, &str); 1] = [("0.1.0", include_str!("../golden/0.1.0.json"))];

/// What one has and the other lacks.
fn lost(before: &Value, after: &Value, at: &str) -> Vec<String> {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => before
            .iter()
            .flat_map(|(key, value)| lost(value, after.get(key).unwrap_or(&Value::Null), &format!("{at}.{key}")))
            .collect(),
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            let each = before.iter().zip(after).enumerate();
            each.flat_map(|(index, (before, after))| lost(before, after, &format!("{at}[{index}]"))).collect()
        }
        _ if before == after => Vec::new(),
        _ => vec![format!("{at}: {before} became {after}")],
    }
}

#[test]
fn the_state_that_any_version_wrote_is_understood_and_nothing_of_it_lost() {
    for (version, text) in WRITTEN {
        let state = understand(text.as_bytes()).unwrap_or_else(|error| panic!("{version}: {error}"));
        assert_eq!((state.version.as_str(), state.workers.len()), (version, 2));
        let again = serde_json::to_value(&state).unwrap();
        let lost = lost(&serde_json::from_str(text).unwrap(), &again, "");
        assert!(lost.is_empty(), "{version}: {lost:#?}");
    }
}

#[test]
fn a_state_of_another_format_is_refused() {
    let other = WRITTEN[0].1.replacen("\"format\": 1", "\"format\": 999", 1);
    assert!(matches!(understand(other.as_bytes()), Err(StateError::Format { found: 999 })));
}
