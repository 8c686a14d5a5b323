// SPDX-License-Identifier: GPL-2.0-only
//! A results file as the events of the run that wrote it.

use std::ops::ControlFlow;
use std::path::Path;

use crate::results::{Event, Sink, exit};
use crate::results::{ReadError, for_each_record};
use crate::results::{Record, Summary};

/// Feeds the events of a run to `sink` again, but for the beginnings of cases. A run that was killed ends with what did not
/// run counted.
pub fn replay(file: &Path, sink: &mut dyn Sink) -> Result<(), ReadError> {
    let mut replay = Replay::new();
    let mut flow = ControlFlow::Continue(());
    for_each_record(file, |record| {
        if let (true, Some(event)) = (flow.is_continue(), replay.event(record)) {
            flow = sink.event(&event);
        }
    })?;
    let Replay { mut so_far, number, ended } = replay;
    if !ended && flow.is_continue() {
        so_far.not_run = so_far.planned.saturating_sub(number);
        so_far.exit_status = exit::FAILED;
        let _ = sink.event(&Event::Aborted("the results end early: the run was killed".into()));
        let _ = sink.event(&Event::Ended(so_far));
    }
    Ok(())
}

/// The records of a results file, one after the other, as events.
#[derive(Default)]
pub struct Replay {
    so_far: Summary,
    number: usize,
    ended: bool,
}

impl Replay {
    /// Nothing so far.
    pub fn new() -> Replay {
        Replay::default()
    }

    /// The event that `record` was written for; none of the beginning of a case, whose process is long gone.
    pub fn event(&mut self, record: Record) -> Option<Event> {
        Some(match record {
            Record::Run(run) => {
                self.so_far.planned = run.planned;
                Event::Started(run)
            }
            Record::Case(record) => {
                self.number += 1;
                self.so_far.count_case(&record);
                Event::Finished { number: self.number, total: self.so_far.planned, record }
            }
            Record::Started(_) => return None,
            Record::Resumed(resumed) => Event::Resumed(resumed),
            Record::Waiver(waiver) => Event::Waiver(waiver),
            Record::Note(note) => Event::Note(note.text),
            Record::Aborted(aborted) => Event::Aborted(aborted.reason),
            Record::NotRun(case) => Event::NotRun(case.id),
            Record::Summary(summary) => {
                self.ended = true;
                Event::Ended(summary)
            }
        })
    }
}
