// SPDX-License-Identifier: GPL-2.0-only
//! All reports of a run, and what becomes of the run when one of them cannot be written.

use std::io::{self, ErrorKind, Write};
use std::ops::ControlFlow;

use crate::results::{Event, Sink};

/// One report.
pub trait Report {
    /// Writes what the event adds to the report.
    fn event(&mut self, event: &Event) -> io::Result<()>;
}

impl Report for Box<dyn Report> {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        (**self).event(event)
    }
}

/// Every report of a run, with the name of where each goes.
///
/// A reader that goes away (a closed pipe) ends that report and, quietly, the run. Any other error ends that report with
/// a message; the run goes on for the others. In both cases the run has failed.
#[derive(Default)]
pub struct Reports {
    reports: Vec<(String, Box<dyn Report>)>,
    failed: bool,
}

impl Reports {
    /// No reports yet.
    pub fn new() -> Reports {
        Reports::default()
    }

    /// Whether there are none, or none is left that can be written.
    pub fn is_empty(&self) -> bool {
        self.reports.is_empty()
    }

    /// Adds one; `name` says where it goes, for messages.
    pub fn add(&mut self, name: impl Into<String>, report: impl Report + 'static) {
        self.reports.push((name.into(), Box::new(report)));
    }
}

impl Sink for Reports {
    fn event(&mut self, event: &Event) -> ControlFlow<()> {
        let mut flow = ControlFlow::Continue(());
        let mut failed = false;
        self.reports.retain_mut(|(name, report)| {
            let Err(error) = report.event(event) else {
                return true;
            };
            failed = true;
            if error.kind() == ErrorKind::BrokenPipe {
                flow = ControlFlow::Break(());
            } else {
                // Nothing is left to do when the standard error cannot be written either.
                let _ = writeln!(io::stderr(), "gmem-conform: cannot write {name}: {error}");
            }
            false
        });
        self.failed |= failed;
        if self.reports.is_empty() {
            flow = ControlFlow::Break(());
        }
        flow
    }

    fn failed(&self) -> bool {
        self.failed
    }
}
