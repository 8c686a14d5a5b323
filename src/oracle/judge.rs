// SPDX-License-Identifier: GPL-2.0-only
//! What a conversion must return, and what it does when it succeeds.

use std::ops::Range;

use super::content::Content;
use super::state::{Backing, Hole, Oracle};
use crate::case::{Attribute, Capability, Descriptor, Mode, Pointer, RawConvert};
use crate::clause::ClauseId;
use crate::dialect::Dialect;
use crate::errno::Errno;
use crate::platform::Platform;
use crate::uapi::{ATTRIBUTE_PRIVATE, PAGE_SIZE};

/// What must be in `error_offset` after a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorOffset {
    /// What the caller had put there.
    Untouched,
    /// This byte offset into the file.
    At(u64),
    /// Nothing is promised.
    Anything,
}

/// One outcome that the clauses allow for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Success, or the error number.
    pub result: Result<(), Errno>,
    /// What must then be in `error_offset`.
    pub error_offset: ErrorOffset,
    /// The clause that says so.
    pub clause: ClauseId,
    /// The clause that is broken when the result is right and `error_offset` is not.
    pub error_offset_clause: ClauseId,
    /// The clause that is broken when a refused call has an effect all the same.
    pub no_effect_clause: ClauseId,
}

impl Allowed {
    fn success(clause: ClauseId) -> Allowed {
        Allowed {
            result: Ok(()),
            error_offset: ErrorOffset::Untouched,
            clause,
            error_offset_clause: ClauseId::ConvertSuccessUntouched,
            no_effect_clause: clause,
        }
    }

    /// A refusal before anything was looked at; `error_offset` is documented for later errors only.
    fn bad_arguments(errno: Errno, clause: ClauseId) -> Allowed {
        Allowed {
            result: Err(errno),
            error_offset: ErrorOffset::Anything,
            clause,
            error_offset_clause: clause,
            no_effect_clause: ClauseId::ArgumentsNoEffect,
        }
    }
}

/// Whether a content mode is offered for conversions to `to` (RFC v4 14/44, RFC v5 23/53 and 26/53), while the guest's
/// launch is not finished or after. Unspecified always is.
pub fn mode_offered(
    platform: Platform,
    dialect: Dialect,
    to: Attribute,
    mode: Mode,
    launched: bool,
) -> bool {
    match (mode, to) {
        (Mode::Unspecified, _) => true,
        _ if !dialect.has_content_modes() => false,
        // KVM is not trusted, so it cannot promise the guest anything.
        (Mode::Zero, Attribute::Private) => false,
        // What a guest's key has encrypted is of no use without it. What is to be encrypted by the launch is not yet.
        _ if platform.is_encrypted() => {
            let early = dialect == Dialect::RfcV5 && !launched && to == Attribute::Private;
            mode == Mode::Zero || early
        }
        (Mode::Zero, Attribute::Shared) | (Mode::Preserve, _) => platform.has_private_memory(),
    }
}

/// What `KVM_CHECK_EXTENSION` must answer on the system and on a VM (RFC v4 15/44, RFC v5 28/53, v8 17/46).
pub fn capability_values(
    platform: Platform,
    dialect: Dialect,
    capability: Capability,
) -> (i32, i32) {
    let on_vm = |value| {
        if platform.has_private_memory() { value } else { 0 }
    };
    let private = ATTRIBUTE_PRIVATE as i32;
    let modes = Mode::BITS as i32;
    // RFC v5 counts what is offered only as long as the launch is not finished.
    let modes_on_vm = match platform.is_encrypted() {
        true if dialect == Dialect::RfcV4 => Mode::Zero.bits() as i32,
        _ => on_vm(modes),
    };
    match capability {
        // Attributes are kept per guest_memfd, so there are none per VM.
        Capability::MemoryAttributes => (0, 0),
        _ if dialect == Dialect::None => (0, 0),
        Capability::GuestMemfdMemoryAttributes => (private, on_vm(private)),
        Capability::MemoryAttributes2Flags if dialect.has_content_modes() => (modes, modes_on_vm),
        Capability::MemoryAttributes2Flags => (0, 0),
    }
}

/// A call whose arguments were found good.
struct Request {
    range: Range<u64>,
    to: Attribute,
    mode: Mode,
}

impl Oracle {
    /// Every outcome that the clauses allow for this call, the likeliest first.
    pub fn judge(&self, call: &RawConvert) -> Vec<Allowed> {
        if call.descriptor == Descriptor::Vm {
            return vec![Allowed::bad_arguments(Errno::ENOTTY, ClauseId::DescriptorVm)];
        }
        if call.pointer == Pointer::Bad {
            return vec![Allowed::bad_arguments(Errno::EFAULT, ClauseId::ArgumentsPointer)];
        }
        let request = match self.check_arguments(call) {
            Ok(request) => request,
            Err(clause) => return vec![Allowed::bad_arguments(Errno::EINVAL, clause)],
        };
        let mut allowed = self.judge_request(call, &request);
        // A result that cannot be written back is EFAULT instead.
        if call.pointer == Pointer::ReadOnly && allowed[0].result.is_err() {
            allowed[0].result = Err(Errno::EFAULT);
            allowed[0].error_offset = ErrorOffset::Anything;
        }
        // Whether a VM without private memory takes a conversion to shared changed between the revisions, and none
        // before v8 says so: refusing it is fine.
        if self.platform == Platform::Default {
            allowed.push(Allowed::bad_arguments(Errno::EINVAL, ClauseId::DefaultRefused));
        }
        allowed
    }

    /// The clause that a bad argument breaks. Which of several bad arguments is found first is not promised: all are
    /// EINVAL.
    fn check_arguments(&self, call: &RawConvert) -> Result<Request, ClauseId> {
        if call.flags & !Mode::BITS != 0 {
            return Err(ClauseId::ArgumentsFlags);
        }
        if call.flags != 0 && !self.dialect.has_content_modes() {
            return Err(ClauseId::UpstreamNoModes);
        }
        let mode = Mode::of_flags(call.flags).ok_or(ClauseId::ArgumentsFlags)?;
        if call.error_offset != 0 && self.dialect == Dialect::RfcV4 {
            return Err(ClauseId::ArgumentsErrorOffset);
        }
        if call.reserved.iter().any(|word| *word != 0) {
            return Err(ClauseId::ArgumentsReserved);
        }
        if !self.platform.has_private_memory()
            && (call.attributes == ATTRIBUTE_PRIVATE || self.dialect == Dialect::Upstream)
        {
            return Err(ClauseId::DefaultRefused);
        }
        let to = match call.attributes {
            0 => Attribute::Shared,
            ATTRIBUTE_PRIVATE => Attribute::Private,
            _ => return Err(ClauseId::ArgumentsAttributes),
        };
        let end = call.offset.checked_add(call.size).ok_or(ClauseId::ArgumentsRange)?;
        if call.size == 0 {
            return Err(ClauseId::ArgumentsRange);
        }
        if !call.offset.is_multiple_of(PAGE_SIZE) || !call.size.is_multiple_of(PAGE_SIZE) {
            return Err(ClauseId::ArgumentsAlignment);
        }
        if end > self.file_pages * PAGE_SIZE {
            return Err(ClauseId::ArgumentsRange);
        }
        Ok(Request { range: call.offset / PAGE_SIZE..end / PAGE_SIZE, to, mode })
    }

    fn judge_request(&self, call: &RawConvert, request: &Request) -> Vec<Allowed> {
        let Request { range, to, mode } = request;
        if !mode_offered(self.platform, self.dialect, *to, *mode, self.launched) {
            let to_private = *mode == Mode::Zero && *to == Attribute::Private;
            return vec![Allowed {
                result: Err(Errno::EOPNOTSUPP),
                error_offset: ErrorOffset::At(call.offset),
                clause: if to_private {
                    ClauseId::ZeroToPrivateRefused
                } else {
                    ClauseId::ModeRefused
                },
                error_offset_clause: ClauseId::ModeRefused,
                no_effect_clause: ClauseId::ModeRefusedNoEffect,
            }];
        }
        let in_use = self.pins.range(range.clone()).next().map(|(page, _)| *page);
        match (to, in_use) {
            (Attribute::Private, Some(page)) => vec![Allowed {
                result: Err(Errno::EAGAIN),
                error_offset: ErrorOffset::At(page * PAGE_SIZE),
                clause: ClauseId::InUseRefused,
                error_offset_clause: ClauseId::InUseErrorOffset,
                no_effect_clause: ClauseId::InUseNoEffect,
            }],
            (Attribute::Shared, Some(_)) => vec![Allowed::success(ClauseId::InUseToShared)],
            (Attribute::Private, None) if self.was_refused => {
                vec![Allowed::success(ClauseId::InUseRetry)]
            }
            (_, None) if *mode == Mode::Unspecified => {
                vec![Allowed::success(ClauseId::UnspecifiedAccepted)]
            }
            (_, None) if *mode == Mode::Preserve && self.platform.is_encrypted() => {
                vec![Allowed::success(ClauseId::CocoLaunchPreserve)]
            }
            (_, None) => vec![Allowed::success(ClauseId::ConvertAccepted)],
        }
    }

    /// The call returned `result`, one of those that were allowed.
    pub fn apply(&mut self, call: &RawConvert, result: Result<(), Errno>) {
        match result {
            Ok(()) => {
                if let Ok(request) = self.check_arguments(call) {
                    self.convert(&request);
                }
            }
            Err(Errno::EAGAIN) => self.was_refused = true,
            Err(_) => {}
        }
    }

    /// A conversion has succeeded.
    fn convert(&mut self, request: &Request) {
        let Request { range, to, mode } = request;
        let (encrypted, settled) = (self.platform.is_encrypted(), self.keeps_settled());
        for number in self.pages_with_memory(range.clone()) {
            let already = self.attribute(number) == *to;
            let Some(page) = self.pages.get_mut(&number) else {
                continue;
            };
            if page.backing == Backing::Reserved {
                match mode {
                    // ZERO may be the touch that clears the memory, and what comes later then acts on it like on any other.
                    Mode::Zero => {
                        (page.backing, page.content) = (Backing::Allocated, Content::Zero)
                    }
                    // The memory is there, so nothing is promised about it. Nobody has written to it either.
                    Mode::Unspecified if encrypted || self.dialect.has_content_modes() => {
                        (page.content, page.clause) = (Content::Unwritten, ClauseId::ConvertHoles);
                    }
                    Mode::Preserve | Mode::Unspecified => {}
                }
                continue;
            }
            match mode {
                Mode::Zero => {
                    page.content = Content::Zero;
                    page.clause =
                        if already { ClauseId::ZeroWholeRange } else { ClauseId::ZeroToShared };
                }
                Mode::Preserve => {
                    page.clause = match to {
                        _ if already => ClauseId::PreserveWholeRange,
                        Attribute::Private => ClauseId::PreserveToPrivate,
                        Attribute::Shared => ClauseId::PreserveToShared,
                    };
                }
                // KVM does not touch it, and firmware has no reason to.
                Mode::Unspecified
                    if encrypted && settled && already && *to == Attribute::Private =>
                {
                    page.clause = ClauseId::CocoMixedRange;
                }
                // Nobody has made it the guest's yet, and the launch is to take it as it is.
                Mode::Unspecified
                    if encrypted && settled && !self.launched && *to == Attribute::Private =>
                {
                    page.clause = ClauseId::CocoLaunchInPlace;
                }
                Mode::Unspecified if encrypted || self.dialect.has_content_modes() => {
                    page.content = Content::Unknown;
                    page.clause = ClauseId::UnspecifiedStable;
                }
                Mode::Unspecified => page.clause = ClauseId::UpstreamContentsKept,
            }
        }
        self.convert_acceptance(range, *to);
        self.holes.set(range.clone(), Hole::Converted);
        self.attributes.set(range.clone(), (*to, ClauseId::ConvertRange));
    }
}
