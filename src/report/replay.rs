// SPDX-License-Identifier: GPL-2.0-only
//! A results file as the events of the run that wrote it.

use std::ops::ControlFlow;
use std::path::Path;

use crate::results::{Event, Sink, exit};
use crate::results::{ReadError, for_each_record};
use crate::results::{Record, Summary};

/// Feeds the events of a run to `sink` again; notes, which a results file does not hold, are not among them. A run that
/// was killed ends with what did not run counted.
pub fn replay(file: &Path, sink: &mut dyn Sink) -> Result<(), ReadError> {
    let mut so_far = Summary::default();
    let mut number = 0;
    let mut ended = false;
    let mut flow = ControlFlow::Continue(());
    for_each_record(file, |record| {
        let event = match record {
            Record::Run(run) => {
                so_far.planned = run.planned;
                Event::Started(run)
            }
            Record::Case(record) => {
                number += 1;
                so_far.count(record.verdict);
                Event::Finished { number, total: so_far.planned, record }
            }
            Record::Waiver(waiver) => Event::Waiver(waiver),
            Record::Summary(summary) => {
                ended = true;
                Event::Ended(summary)
            }
        };
        if flow.is_continue() {
            flow = sink.event(&event);
        }
    })?;
    if !ended && flow.is_continue() {
        so_far.not_run = so_far.planned.saturating_sub(number);
        so_far.exit_status = exit::FAILED;
        let _ = sink.event(&Event::Aborted("the results end early: the run was killed".into()));
        let _ = sink.event(&Event::Ended(so_far));
    }
    Ok(())
}
