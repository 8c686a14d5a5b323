// SPDX-License-Identifier: GPL-2.0-only
//! Reading results files, whatever version of the program wrote them and wherever they end; see [`crate::results`] for
//! what readers may rely on.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use strum::VariantNames;

use super::{LineError, ReadError};
use crate::results::{Record, SCHEMA_VERSION, Verdict};

/// Bytes that are read at once: results files may be large.
const BUFFER: usize = 1 << 18;

/// A results file that is read line by line.
pub struct ResultsFile {
    name: String,
    reader: BufReader<File>,
    line: Vec<u8>,
    number: usize,
}

/// What every version has in every record, as far as it is there: enough to compare results without understanding them.
#[derive(Debug, Deserialize)]
pub struct Outline {
    /// The record's type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Of a case: its id.
    #[serde(default)]
    pub id: String,
    /// Of a case: its verdict.
    #[serde(default)]
    pub verdict: String,
    /// Of a case: what went wrong.
    #[serde(default)]
    pub failure: Option<FailureOutline>,
    /// Of a case: why it was skipped.
    #[serde(default)]
    pub needs: Vec<NeedOutline>,
    /// Of a summary.
    #[serde(default)]
    pub not_run: usize,
    /// Of a summary.
    #[serde(default)]
    pub exit_status: u8,
    /// Failures in company only, of a summary.
    #[serde(default)]
    pub only_in_company: usize,
    /// Launches of encrypted guests, of a summary.
    #[serde(default)]
    pub launches: u64,
    /// Of a summary.
    #[serde(default)]
    pub elapsed_ms: u64,
}

/// What went wrong, in short.
#[derive(Debug, Deserialize)]
pub struct FailureOutline {
    /// One line.
    #[serde(default)]
    pub summary: String,
    /// The clause that was broken.
    #[serde(default)]
    pub clause: Option<String>,
}

/// What a case needs, in short.
#[derive(Debug, Deserialize)]
pub struct NeedOutline {
    /// Short and fixed.
    #[serde(default)]
    pub slug: String,
}

/// A verdict of this version, or the name of one that a newer version has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnyVerdict {
    /// One of ours.
    Known(Verdict),
    /// A newer version's.
    Unknown(Box<str>),
}

impl AnyVerdict {
    /// The verdict with this name.
    pub fn new(name: &str) -> AnyVerdict {
        match Verdict::deserialize(Value::from(name)) {
            Ok(verdict) => AnyVerdict::Known(verdict),
            Err(_) => AnyVerdict::Unknown(name.into()),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            AnyVerdict::Known(verdict) => verdict.name(),
            AnyVerdict::Unknown(name) => name,
        }
    }
}

impl ResultsFile {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<ResultsFile, ReadError> {
        let name = path.display().to_string();
        match File::open(path) {
            Ok(file) => {
                let reader = BufReader::with_capacity(BUFFER, file);
                Ok(ResultsFile { name, reader, line: Vec::new(), number: 0 })
            }
            Err(error) => Err(ReadError::Io { file: name, error }),
        }
    }

    /// The first line of any file of JSON Lines that this program writes; its `type` says which kind of file it is.
    pub fn first(&mut self) -> Result<Value, ReadError> {
        if !self.advance()? {
            return Err(ReadError::Empty { file: self.name.clone() });
        }
        serde_json::from_slice(&self.line).map_err(|error| self.at(LineError::NoResult(error)))
    }

    /// The first line, which says what was to run and where.
    pub fn head(&mut self) -> Result<Value, ReadError> {
        let head = self.first()?;
        match head["type"] == "run" {
            true => Ok(head),
            false => Err(self.at(LineError::NoRun)),
        }
    }

    /// Moves on to the next line; false at the end.
    fn advance(&mut self) -> Result<bool, ReadError> {
        self.line.clear();
        let length = self.reader.read_until(b'\n', &mut self.line);
        let length = length.map_err(|error| ReadError::Io { file: self.name.clone(), error })?;
        self.number += 1;
        Ok(length > 0)
    }

    /// The next line as a `T`, and as it is written. `None` at the end; a last line that was cut short, because the runner
    /// was killed, is passed over.
    pub fn next<'a, T: Deserialize<'a>>(&'a mut self) -> Result<Option<(T, &'a [u8])>, ReadError> {
        if !self.advance()? {
            return Ok(None);
        }
        match serde_json::from_slice(&self.line) {
            Ok(parsed) => Ok(Some((parsed, &self.line))),
            Err(_) if self.line.last() != Some(&b'\n') => Ok(None),
            Err(error) => Err(self.at(LineError::NoResult(error))),
        }
    }

    /// Says what is wrong with the current line.
    pub fn at(&self, problem: LineError) -> ReadError {
        ReadError::Line { file: self.name.clone(), line: self.number, problem }
    }
}

/// Hands every record of a file to `take`, in order. Types of records that this version does not know are passed over.
pub fn for_each_record(path: &Path, mut take: impl FnMut(Record)) -> Result<(), ReadError> {
    #[derive(Deserialize)]
    struct Kind {
        #[serde(rename = "type")]
        kind: String,
    }
    let mut file = ResultsFile::open(path)?;
    let head = file.head()?;
    let version = head["schema"].as_u64().unwrap_or_default();
    let no_result = |error| match version > u64::from(SCHEMA_VERSION) {
        true => LineError::Newer { error, version },
        false => LineError::NoResult(error),
    };
    let head = serde_json::from_value(head);
    take(head.map_err(|error| file.at(no_result(error)))?);
    while let Some((Kind { kind }, line)) = file.next()? {
        if !Record::VARIANTS.contains(&kind.as_str()) {
            continue;
        }
        match serde_json::from_slice(line) {
            Ok(Record::Run(_)) => {
                return Err(file.at(LineError::SecondRun));
            }
            Ok(record) => take(record),
            Err(error) => return Err(file.at(no_result(error))),
        }
    }
    Ok(())
}
