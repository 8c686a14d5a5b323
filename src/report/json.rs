// SPDX-License-Identifier: GPL-2.0-only
//! JSON Lines after `results-schema.json`.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use crate::results::Event;
use crate::results::Record;

use super::Report;
use super::file::{CreateError, create};

/// Writes one record a line, each with one write, so that a run that is killed leaves complete lines only.
pub struct Json {
    out: Out,
}

enum Out {
    /// A file, and how much of it is complete lines.
    File(File, u64),
    Stdout,
}

impl Json {
    /// Into a file, which is emptied.
    pub fn create(path: &Path) -> Result<Json, CreateError> {
        Ok(Json { out: Out::File(create("--json", path)?, 0) })
    }

    /// To the standard output.
    pub fn stdout() -> Json {
        Json { out: Out::Stdout }
    }

    /// Writes one line.
    pub(crate) fn write(&mut self, record: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        match &mut self.out {
            Out::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(&line)?;
                out.flush()
            }
            Out::File(file, complete) => match file.write_all(&line) {
                Ok(()) => {
                    *complete += line.len() as u64;
                    Ok(())
                }
                Err(error) => {
                    // A disk that is full takes the beginning of a line; a pipe or a device cannot be shortened, and
                    // then its reader has to cope.
                    let _ = file.set_len(*complete);
                    Err(error)
                }
            },
        }
    }
}

impl Report for Json {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Started(run) => self.write(&Record::Run(run.clone())),
            Event::Finished { record, .. } => self.write(&Record::Case(record.clone())),
            Event::Ended(summary) => self.write(&Record::Summary(*summary)),
            Event::Waiver(waiver) => self.write(&Record::Waiver(waiver.clone())),
            Event::CaseStarted { .. } | Event::Note(_) | Event::Aborted(_) => Ok(()),
        }
    }
}
