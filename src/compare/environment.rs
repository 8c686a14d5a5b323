// SPDX-License-Identifier: GPL-2.0-only
//! In what two runs' surroundings differ, whatever fields their versions have.

use std::collections::BTreeMap;

use serde_json::Value;

/// Options that name a file to write.
const OUTPUTS: [&str; 4] = ["--json", "--junit", "--kcidb", "--html"];

/// The fields of a run record that say something about where and how it ran, by dotted name. What differs in every run,
/// such as the time, is not among them.
pub(super) fn fields(run: &Value) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    flatten("", &run["environment"], &mut fields);
    for name in ["suite", "schema", "timeout_s", "shard", "firmware", "repeat"] {
        if !run[name].is_null() {
            flatten(name, &run[name], &mut fields);
        }
    }
    if let Some(arguments) = run["arguments"].as_array() {
        fields.insert("arguments".into(), telling(arguments));
    }
    fields
}

/// A command line without the files that are written: two runs to be compared never write the same.
fn telling(arguments: &[Value]) -> String {
    let mut words = Vec::new();
    let mut arguments = arguments.iter().map(plain);
    while let Some(word) = arguments.next() {
        let name = word.split_once('=').map_or(word.as_str(), |(name, _)| name);
        if !OUTPUTS.contains(&name) {
            words.push(word);
        } else if name.len() == word.len() {
            // The file is a word of its own.
            arguments.next();
        }
    }
    if words.is_empty() { "(none)".into() } else { words.join(" ") }
}

fn flatten(name: &str, value: &Value, fields: &mut BTreeMap<String, String>) {
    let below = |key: &str| match name {
        "" => key.to_string(),
        name => format!("{name}.{key}"),
    };
    match value {
        Value::Object(object) if name == "shard" => {
            let part = |key: &str| object.get(key).map_or_else(String::new, Value::to_string);
            fields.insert(name.into(), format!("{}/{}", part("index"), part("count")));
        }
        Value::Object(object) => {
            for (key, value) in object {
                flatten(&below(key), value, fields);
            }
        }
        Value::Array(platforms) if name == "platforms" => {
            for platform in platforms {
                let missing = platform["missing"].as_array().map_or(&[][..], Vec::as_slice);
                let slugs: Vec<&str> = missing.iter().filter_map(|n| n["slug"].as_str()).collect();
                let state = if slugs.is_empty() { "can run".to_string() } else { slugs.join(",") };
                fields.insert(below(platform["name"].as_str().unwrap_or("?")), state);
            }
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(plain).collect();
            fields.insert(name.into(), items.join("; "));
        }
        Value::Null => {}
        value => {
            fields.insert(name.into(), plain(value));
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_string)
}

/// Every field in which two runs differ: name, before, after; `None` for a field that a run does not have.
pub(super) fn differences(
    base: &Value,
    patched: &Value,
) -> Vec<(String, Option<String>, Option<String>)> {
    let (mut base, patched) = (fields(base), fields(patched));
    let mut differences = Vec::new();
    for (name, after) in patched {
        let before = base.remove(&name);
        if before.as_ref() != Some(&after) {
            differences.push((name, before, Some(after)));
        }
    }
    differences.extend(base.into_iter().map(|(name, before)| (name, Some(before), None)));
    differences.sort();
    differences
}
