// SPDX-License-Identifier: GPL-2.0-only
//! JSON Lines after `results-schema.json`.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::Serialize;

use crate::results::Event;
use crate::results::{AbortedRecord, NotRunRecord, NoteRecord, Record, StartedRecord};

use super::Report;
use super::file::{AppendError, CreateError, create};
use super::silence::Silence;

/// Writes one record a line, each with one write, so that a run that is killed leaves complete lines only. A case begins when
/// the disk has all that was written before it: the kernel may go down with the case.
pub struct Json {
    out: Out,
    /// Whether the machine below may go down. The model does not take it down.
    durable: bool,
}

enum Out {
    /// A file, and how much of it is complete lines.
    File(File, u64),
    /// But for what comes in a silence.
    Stdout(Silence),
}

impl Json {
    /// Into a file, which is emptied.
    pub fn create(path: &Path) -> Result<Json, CreateError> {
        Ok(Json { out: Out::File(create("--json", path)?, 0), durable: false })
    }

    /// To the standard output.
    pub fn stdout() -> Json {
        Json::stdout_unless(Silence::default())
    }

    /// To the standard output, but for what comes in a silence.
    pub fn stdout_unless(silence: Silence) -> Json {
        Json { out: Out::Stdout(silence), durable: false }
    }

    /// Behind what a file has, without the beginning of a line at its end. With `durable`, a case begins when the disk has what
    /// was written before.
    pub fn append(path: &Path, durable: bool) -> Result<Json, AppendError> {
        let open = || {
            let mut file = File::options().read(true).write(true).open(path)?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            let complete = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            // Only the end of the line may be missing.
            if serde_json::from_slice::<serde_json::Value>(&bytes[complete..]).is_ok() {
                file.write_all(b"\n")?;
                return Ok((bytes.len() + 1, file));
            }
            file.set_len(complete as u64)?;
            file.seek(SeekFrom::End(0))?;
            Ok((complete, file))
        };
        let opened: io::Result<(usize, File)> = open();
        let (length, file) =
            opened.map_err(|error| AppendError { path: path.to_path_buf(), error })?;
        Ok(Json { out: Out::File(file, length as u64), durable })
    }

    fn started(&mut self, id: &str) -> io::Result<()> {
        self.write(&Record::Started(StartedRecord { id: id.to_string() }))?;
        match &self.out {
            // Pipes and devices have no disk, and say so.
            Out::File(file, _) if self.durable => drop(file.sync_data()),
            Out::File(..) | Out::Stdout(_) => {}
        }
        Ok(())
    }

    /// Writes one line.
    pub(crate) fn write(&mut self, record: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        match &mut self.out {
            Out::Stdout(silence) if silence.is_kept() => Ok(()),
            Out::Stdout(_) => {
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
            Event::Started(run) => {
                self.durable = !run.environment.is_model();
                self.write(&Record::Run(run.clone()))
            }
            Event::Finished { record, .. } => self.write(&Record::Case(record.clone())),
            Event::Ended(summary) => self.write(&Record::Summary(*summary)),
            Event::Waiver(waiver) => self.write(&Record::Waiver(waiver.clone())),
            Event::CaseStarted { id, .. } => self.started(id),
            Event::Resumed(resumed) => self.write(&Record::Resumed(resumed.clone())),
            Event::Note(text) => self.write(&Record::Note(NoteRecord { text: text.clone() })),
            Event::Aborted(reason) => {
                self.write(&Record::Aborted(AbortedRecord { reason: reason.clone() }))
            }
            Event::NotRun(id) => self.write(&Record::NotRun(NotRunRecord { id: id.clone() })),
        }
    }
}
