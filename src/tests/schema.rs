// SPDX-License-Identifier: GPL-2.0-only
//! Comparing types with the schemas that are committed, and records with schemas.

use std::path::{Path, PathBuf};

use boon::{Compiler, Schemas};
use serde_json::{Value, json};

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

/// The committed schema `file` is the one that the types give.
pub(crate) fn is_current(file: &str, title: &str, schema: schemars::Schema) {
    let mut schema = serde_json::to_value(schema).unwrap();
    schema["title"] = json!(title);
    let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
    if std::env::var_os("GMEM_CONFORM_UPDATE").is_some() {
        std::fs::write(path(file), &text).unwrap();
    }
    let committed = std::fs::read_to_string(path(file)).unwrap_or_default();
    assert!(
        committed == text,
        "{file} is out of date; raise the format's version and run `GMEM_CONFORM_UPDATE=1 cargo test schema`"
    );
}

/// A value that is not valid, and why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Invalid(String);

/// Whether `value` is valid by the committed schema `file`.
pub(crate) fn is_valid(file: &str, value: &Value) -> Result<(), Invalid> {
    let schema: Value =
        serde_json::from_str(&std::fs::read_to_string(path(file)).unwrap()).unwrap();
    let mut compiler = Compiler::new();
    compiler.add_resource(file, schema).unwrap();
    let mut schemas = Schemas::new();
    let index = compiler.compile(file, &mut schemas).unwrap();
    schemas.validate(value, index).map_err(|error| Invalid(error.to_string()))
}
