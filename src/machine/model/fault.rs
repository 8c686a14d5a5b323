// SPDX-License-Identifier: GPL-2.0-only
//! What can be planted in the model: bugs, each of which breaks a promise, and liberties, which break none.

use serde::{Deserialize, Serialize};

use crate::clause::ClauseId;
use crate::dialect::Dialect;
use crate::uapi::{KVM_X86_DEFAULT_VM, KVM_X86_SNP_VM, KVM_X86_SW_PROTECTED_VM, KVM_X86_TDX_VM};

/// Every dialect in which the call exists.
const ANY: &[Dialect] = &Dialect::ALL;
/// The dialects with content modes.
const MODES: &[Dialect] = &[Dialect::RfcV4, Dialect::RfcV5];
/// Only where error_offset must be 0 on input.
const V4: &[Dialect] = &[Dialect::RfcV4];
/// Where error_offset is ignored on input.
const AFTER_V4: &[Dialect] = &[Dialect::RfcV5, Dialect::Upstream];
/// Only where there are no content modes.
const UPSTREAM: &[Dialect] = &[Dialect::Upstream];
/// Only where PRESERVE to private is offered before the launch is finished.
const V5: &[Dialect] = &[Dialect::RfcV5];

/// The VM types without encryption.
const PLAIN: &[u32] = &[KVM_X86_DEFAULT_VM, KVM_X86_SW_PROTECTED_VM];
/// Those with it.
const COCO: &[u32] = &[KVM_X86_SNP_VM, KVM_X86_TDX_VM];
/// One of them.
const SNP: &[u32] = &[KVM_X86_SNP_VM];
/// The other.
const TDX: &[u32] = &[KVM_X86_TDX_VM];
/// All of them.
const EVERY: &[u32] =
    &[KVM_X86_DEFAULT_VM, KVM_X86_SW_PROTECTED_VM, KVM_X86_SNP_VM, KVM_X86_TDX_VM];

/// Declares the enum and its tables from one list: variant, name, clause, dialects, for encrypted guests' bugs the types of
/// VM that show them, description.
macro_rules! faults {
    (
        bugs { $($bug:ident $bug_name:literal $bug_clause:ident $bug_in:ident $bug_doc:literal;)* }
        encrypted { $($enc:ident $enc_name:literal $enc_clause:ident $enc_in:ident $enc_on:ident $enc_doc:literal;)* }
        liberties { $($lib:ident $lib_name:literal $lib_clause:ident $lib_in:ident $lib_doc:literal;)* }
    ) => {
        /// One thing planted in the model, exactly where a kernel's author would get it wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Fault {
            $(#[doc = $bug_doc] #[serde(rename = $bug_name)] $bug,)*
            $(#[doc = $enc_doc] #[serde(rename = $enc_name)] $enc,)*
            $(#[doc = $lib_doc] #[serde(rename = $lib_name)] $lib,)*
        }

        impl Fault {
            /// Every bug: each breaks [`Fault::clause`].
            pub const ALL: &'static [Fault] = &[$(Fault::$bug,)* $(Fault::$enc,)*];

            /// Every liberty: correct behaviour that differs from the model's own, of which nobody may complain.
            pub const BENIGN: &'static [Fault] = &[$(Fault::$lib,)*];

            /// The name on the command line.
            pub fn name(self) -> &'static str {
                match self {
                    $(Fault::$bug => $bug_name,)* $(Fault::$enc => $enc_name,)* $(Fault::$lib => $lib_name,)*
                }
            }

            /// One line that says what the machine does.
            pub fn doc(self) -> &'static str {
                match self {
                    $(Fault::$bug => $bug_doc,)* $(Fault::$enc => $enc_doc,)* $(Fault::$lib => $lib_doc,)*
                }
            }

            /// The clause that a bug breaks, or that leaves a liberty open.
            pub fn clause(self) -> ClauseId {
                match self {
                    $(Fault::$bug => ClauseId::$bug_clause,)* $(Fault::$enc => ClauseId::$enc_clause,)* $(Fault::$lib => ClauseId::$lib_clause,)*
                }
            }

            /// The dialects in which it makes a difference.
            pub fn dialects(self) -> &'static [Dialect] {
                match self { $(Fault::$bug => $bug_in,)* $(Fault::$enc => $enc_in,)* $(Fault::$lib => $lib_in,)* }
            }

            /// The types of VM on which cases must find a bug, or bear a liberty. Most bugs that are not about encrypted
            /// guests show there as well, or keep one from being launched, which says nothing about their clause.
            pub fn vm_types(self) -> &'static [u32] {
                match self {
                    $(Fault::$bug => PLAIN,)*
                    $(Fault::$enc => $enc_on,)*
                    $(Fault::$lib if ClauseId::$lib_clause.name().starts_with("coco.") => COCO,)*
                    $(Fault::$lib => EVERY,)*
                }
            }
        }
    };
}

impl Fault {
    /// Whether it breaks no promise.
    pub fn is_benign(self) -> bool {
        Fault::BENIGN.contains(&self)
    }

    /// The bug or liberty with this name.
    pub fn from_name(name: &str) -> Option<Fault> {
        let all = Fault::ALL.iter().chain(Fault::BENIGN);
        all.copied().find(|fault| fault.name() == name)
    }
}

faults! {
    bugs {
        // What a fresh guest_memfd is.
        MissingEntryIsShared "missing-entry-is-shared" FreshAttribute ANY
            "a page without an entry in the attribute store counts as shared, and a fresh file has no entries";
        InitSharedIgnored "init-shared-ignored" FreshAttribute ANY
            "INIT_SHARED is accepted, but every page starts private";
        FreshNotZeroed "fresh-not-zeroed" FreshZero ANY
            "a folio that a guest access allocates is not cleared";
        HostFaultsPrivate "host-faults-private" HostFaultPrivate ANY
            "the host's page fault does not look at the attribute";
        OnlyFirstMappingZapped "only-first-mapping-zapped" HostFaultPrivate ANY
            "a conversion to private unmaps only the first of the host's mappings";
        SharedNotMapped "shared-not-mapped" HostAccessShared ANY
            "after a conversion to shared the host still gets SIGBUS";
        ChildNotZapped "child-not-zapped" ForkView ANY
            "a conversion to private does not unmap the pages from forked children";
        GuestPrivateRefused "guest-private-refused" GuestAccess ANY
            "a software-protected guest's access to a private page ends in KVM_EXIT_MEMORY_FAULT";
        SplitMemory "split-memory" MemorySame ANY
            "private and shared halves of a page are different memory, as before in-place conversion";

        // Which pages are converted.
        OnePageTooMany "one-page-too-many" ConvertPrecise ANY
            "the page after the range is converted too";
        OnePageTooEarly "one-page-too-early" ConvertPrecise ANY
            "the page before the range is converted too";
        NeighbourRecorded "neighbour-recorded" ConvertPrecise ANY
            "the page after a range that becomes private is recorded as private, too, but not unmapped from the host";
        MergeUnderflow "merge-underflow" ConvertPrecise ANY
            "converting page 0 looks at index -1 when it merges ranges, and converts the last page too";
        ScrambleNeighbour "scramble-neighbour" ConvertPrecise MODES
            "mode unspecified also scrambles the folio after the range";
        ZeroNeighbour "zero-neighbour" ConvertPrecise MODES
            "ZERO also clears the folio after the range";
        EntryNotSplit "entry-not-split" ConvertPrecise ANY
            "converting the start of a run of pages with one attribute converts the run to its end";
        OffsetTruncated "offset-truncated" ConvertPrecise ANY
            "the index of the first page is computed in 32 bits of the byte offset, and wrong from 4 GiB on";
        OtherFileConverted "other-file-converted" ConvertPrecise ANY
            "attributes are kept per VM instead of per guest_memfd, so that a conversion reaches its other files";
        OtherFileCleared "other-file-cleared" ConvertPrecise MODES
            "ZERO clears the same pages of the VM's other files, too";
        LastPageMissed "last-page-missed" ConvertRange ANY
            "the last page of a range of several pages is not converted";
        FirstPageMissed "first-page-missed" ConvertRange ANY
            "the first page of a range of several pages is not converted";
        MixedFirstEntryOnly "mixed-first-entry-only" ConvertRange ANY
            "a range that is partly shared and partly private is converted up to the first change only";
        StopsAtLargePage "stops-at-large-page" ConvertRange ANY
            "a range is converted up to the next multiple of 2 MiB only";
        SizeTruncated "size-truncated" ConvertRange ANY
            "the size is kept in 32 bits, so that of a range of 4 GiB and more only the remainder is converted";
        HolesNotCompared "holes-not-compared" ConvertRange ANY
            "a range counts as already converted if its allocated pages are, and its holes are not looked at";
        OnlyFirstEntryChecked "only-first-entry-checked" ConvertRange ANY
            "a range counts as already converted if its first page is";
        HoleShowsOtherPage "hole-shows-other-page" ConvertHoles ANY
            "a conversion gives the first hole of a short range memory that still holds another page's data";
        SuccessWritesErrorOffset "success-writes-error-offset" ConvertSuccessUntouched ANY
            "error_offset is written back on success too";
        SuccessClearsErrorOffset "success-clears-error-offset" ConvertSuccessUntouched AFTER_V4
            "error_offset is set to 0 on success";
        RequiresMmap "requires-mmap" ConvertAccepted ANY
            "the call is refused with EINVAL on a guest_memfd without GUEST_MEMFD_FLAG_MMAP";
        EndOfFileRefused "end-of-file-refused" ConvertAccepted ANY
            "a range that ends with the file is refused with EINVAL";
        NoopRefused "noop-refused" ConvertAccepted ANY
            "a range that is already in the wanted state is refused with EINVAL";
        InUseOffByOne "in-use-off-by-one" InUseRetry ANY
            "a page in use just after the range makes a conversion to private fail";
        InUseCountsBefore "in-use-counts-before" InUseRetry ANY
            "a page in use just before the range makes a conversion to private fail";

        // Arguments.
        BothModesAccepted "both-modes-accepted" ArgumentsFlags MODES
            "ZERO and PRESERVE together are accepted and mean PRESERVE";
        UnknownFlagIgnored "unknown-flag-ignored" ArgumentsFlags MODES
            "flag bits that mean nothing are ignored";
        FlagsTruncated "flags-truncated" ArgumentsFlags ANY
            "only the lower 32 bits of flags are checked";
        ErrorOffsetNotChecked "error-offset-not-checked" ArgumentsErrorOffset V4
            "error_offset is not checked on input";
        ErrorOffsetMustBeZero "error-offset-must-be-zero" ArgumentsErrorOffset AFTER_V4
            "error_offset is refused on input if it is not 0, as it was in RFC v4";
        ReservedNotChecked "reserved-not-checked" ArgumentsReserved ANY
            "the reserved words are not checked";
        LastReservedNotChecked "last-reserved-not-checked" ArgumentsReserved ANY
            "the last of the reserved words is not checked";
        AttributeBitsIgnored "attribute-bits-ignored" ArgumentsAttributes ANY
            "attribute bits other than PRIVATE are ignored";
        AttributesTruncated "attributes-truncated" ArgumentsAttributes ANY
            "only the lower 32 bits of attributes are checked";
        SizeZeroAccepted "size-zero-accepted" ArgumentsRange ANY
            "a size of 0 is accepted and converts nothing";
        WrapAccepted "wrap-accepted" ArgumentsRange ANY
            "a range whose end wraps around 64 bits is accepted and converts nothing";
        OffsetAtEndAccepted "offset-at-end-accepted" ArgumentsRange ANY
            "an offset equal to the file's size is accepted: > instead of >=";
        RangePastEndClamped "range-past-end-clamped" ArgumentsRange ANY
            "a range that reaches past the end of the file is cut off there";
        UnalignedRounded "unaligned-rounded" ArgumentsAlignment ANY
            "unaligned arguments are rounded instead of refused";
        SizeAlignmentUnchecked "size-alignment-unchecked" ArgumentsAlignment ANY
            "the alignment of offset is checked twice, that of size never";
        BadPointerIsEinval "bad-pointer-is-einval" ArgumentsPointer ANY
            "an argument that cannot be read gives EINVAL";
        WriteBackFaultIgnored "write-back-fault-ignored" ArgumentsPointer ANY
            "that error_offset cannot be written back is ignored";
        FlagsCheckedTooLate "flags-checked-too-late" ArgumentsNoEffect ANY
            "flags are checked after the attributes are stored";
        AcceptedOnVm "accepted-on-vm" DescriptorVm ANY
            "the call is accepted on the VM's descriptor, and does nothing";

        // Content modes that are not offered.
        RefusedWithEinval "refused-with-einval" ModeRefused MODES
            "a content mode that is not offered gives EINVAL";
        RefusedOffsetZero "refused-offset-zero" ModeRefused MODES
            "error_offset is 0 instead of the range's start on EOPNOTSUPP";
        RefusedOffsetUninitialised "refused-offset-uninitialised" ModeRefused MODES
            "error_offset is whatever was on the stack on EOPNOTSUPP";
        NoopModeNotChecked "noop-mode-not-checked" ModeRefused MODES
            "a content mode that is not offered succeeds when the range is already in the wanted state";
        RefusedConvertsAnyway "refused-converts-anyway" ModeRefusedNoEffect MODES
            "the attributes change although EOPNOTSUPP is returned";
        RefusedZeroesAnyway "refused-zeroes-anyway" ModeRefusedNoEffect MODES
            "ZERO to private clears the folios although EOPNOTSUPP is returned";
        DefaultModesAccepted "default-modes-accepted" ModeRefused MODES
            "content modes are accepted on a VM type that has none";
        DefaultPrivateAccepted "default-private-accepted" DefaultRefused MODES
            "pages of a VM without private memory can be made private";
        DefaultSharedAccepted "default-shared-accepted" DefaultRefused UPSTREAM
            "the call is not refused on a VM without private memory";

        // ZERO.
        ZeroFirstFolioOnly "zero-first-folio-only" ZeroToShared MODES
            "ZERO clears only the first allocated page of the range";
        ZeroHalfFolio "zero-half-folio" ZeroToShared MODES
            "ZERO clears only the first half of each folio";
        ZeroFirstBatchOnly "zero-first-batch-only" ZeroToShared MODES
            "ZERO clears only the first 31 folios of the range, which is a batch of the page cache";
        ZeroSkipsConverted "zero-skips-converted" ZeroToShared MODES
            "ZERO clears only the pages of the range that are shared already";
        ZeroMissing "zero-missing" ZeroToShared MODES
            "ZERO leaves the contents";
        ModeSkippedOnNoop "mode-skipped-on-noop" ZeroWholeRange MODES
            "a content mode is skipped when the whole range is already in the wanted state";
        ModeSkipsSettledPages "mode-skips-settled-pages" ZeroWholeRange MODES
            "a content mode skips pages of the range that are already in the wanted state";
        ZeroToPrivateAccepted "zero-to-private-accepted" ZeroToPrivateRefused MODES
            "ZERO to private is accepted";

        // PRESERVE.
        PreserveLosesLongRanges "preserve-loses-long-ranges" PreserveToPrivate MODES
            "PRESERVE loses the contents of ranges of more than one page";
        PreserveLosesLastWord "preserve-loses-last-word" PreserveToPrivate MODES
            "PRESERVE clears the last word of each folio that becomes private";
        PreserveSeenLate "preserve-seen-late" PreserveToPrivate MODES
            "the guest's first access after PRESERVE to private comes before the contents are back, and sees zeros";
        PreserveScrambles "preserve-scrambles" PreserveToShared MODES
            "PRESERVE to shared scrambles";
        FolioReplaced "folio-replaced" MemorySame MODES
            "PRESERVE to shared moves the contents to another folio, and the guest keeps the old one mapped";
        PreserveSwapsFolios "preserve-swaps-folios" PreserveToShared MODES
            "PRESERVE exchanges the first two folios that become shared";
        MixedRangeScrubsPrivate "mixed-range-scrubs-private" PreserveWholeRange MODES
            "converting a mixed range to private invalidates the private pages in it, too, which loses their contents";

        // Mode unspecified.
        UnspecifiedRejected "unspecified-rejected" UnspecifiedAccepted MODES
            "a conversion without a content mode is refused with EOPNOTSUPP";
        UnspecifiedUnstable "unspecified-unstable" UnspecifiedStable MODES
            "the scrambling is put off until the guest's next access to the page";

        // Upstream.
        UpstreamModesIgnored "upstream-modes-ignored" UpstreamNoModes UPSTREAM
            "the flags of the RFCs' content modes are ignored instead of refused";
        UpstreamScrambles "upstream-scrambles" UpstreamContentsKept UPSTREAM
            "a conversion fills the folios with random bytes, as in the RFCs";
        TeardownHookOnConversion "teardown-hook-on-conversion" UpstreamContentsKept UPSTREAM
            "a conversion to shared calls the hook that clears memory when it is freed";
        MixedRangeTornDown "mixed-range-torn-down" UpstreamContentsKept UPSTREAM
            "converting a mixed range to private calls that hook for the private pages in it";

        // Pages in use.
        InUseConverted "in-use-converted" InUseRefused ANY
            "pages in use are converted to private all the same";
        InUseFirstFolioOnly "in-use-first-folio-only" InUseRefused ANY
            "only the first page of the range is checked for users";
        InUseFirstBatchOnly "in-use-first-batch-only" InUseRefused ANY
            "only the first 31 folios of the range are checked for users";
        InUseTwiceMissed "in-use-twice-missed" InUseRefused ANY
            "a page counts as in use only if there is exactly one reference too many";
        InUseOffsetIsStart "in-use-offset-is-start" InUseErrorOffset ANY
            "error_offset names the range's start instead of the page in use";
        InUseOffsetHighest "in-use-offset-highest" InUseErrorOffset ANY
            "error_offset names the highest page in use instead of the lowest";
        InUseOffsetRelative "in-use-offset-relative" InUseErrorOffset ANY
            "error_offset counts from the start of the range instead of the file";
        InUseOffsetIsIndex "in-use-offset-is-index" InUseErrorOffset ANY
            "error_offset is a page number instead of a byte offset";
        InUseOffsetBehind "in-use-offset-behind" InUseErrorOffset ANY
            "error_offset names the page after the one in use";
        InUseOffsetTruncated "in-use-offset-truncated" InUseErrorOffset ANY
            "error_offset is shifted in 32 bits, and wrong from 4 GiB on";
        InUseOffsetOfLargeFolio "in-use-offset-of-large-folio" InUseErrorOffset ANY
            "error_offset names the first page of the 2 MiB around the page in use, which may be before the range";
        InUseOffsetNotWritten "in-use-offset-not-written" InUseErrorOffset ANY
            "EAGAIN is returned without error_offset";
        InUsePartlyConverted "in-use-partly-converted" InUseNoEffect ANY
            "the pages before the one in use are converted before EAGAIN is returned";
        InUseContentsLost "in-use-contents-lost" InUseNoEffect MODES
            "the content mode is applied before pages are checked for users";
        InUseLeavesZapped "in-use-leaves-zapped" InUseNoEffect ANY
            "after EAGAIN the host gets SIGBUS in the range, which was unmapped before the pages were checked";
        InUseForever "in-use-forever" InUseRetry ANY
            "a page that was once found in use stays so: the check leaks a reference";
        LruBatchNotDrained "lru-batch-not-drained" InUseRetry ANY
            "per-CPU batches hold references on allocated folios and are never drained, so that they count as in use";
        InUseToShared "in-use-to-shared" InUseToShared ANY
            "a conversion to shared fails, too, when a page is in use";

        // Holes.
        PunchKeepsContents "punch-keeps-contents" PunchZero ANY
            "punching a hole frees nothing";
        PunchFirstFolioOnly "punch-first-folio-only" PunchZero ANY
            "punching a hole frees only the first page of the range";
        PunchSkipsShared "punch-skips-shared" PunchZero ANY
            "punching a hole frees only private pages";
        PunchSkipsPrivate "punch-skips-private" PunchZero ANY
            "punching a hole frees only shared pages";
        PunchResetsAttribute "punch-resets-attribute" PunchAttribute ANY
            "punching a hole resets the attribute to what the file started with";
        PunchMakesShared "punch-makes-shared" PunchAttribute ANY
            "punching a hole erases the entries in the attribute store, so that the pages count as shared";
        PunchGuestNotZapped "punch-guest-not-zapped" PunchZero ANY
            "punching a hole leaves the memory mapped in the guest, which goes on with it";
        AllocateMakesShared "allocate-makes-shared" AllocateHarmless ANY
            "fallocate erases the entries in the attribute store, so that the pages count as shared";
        AllocateLosesContents "allocate-loses-contents" AllocateHarmless ANY
            "fallocate replaces the folios that are there by new ones";
        AllocatedNotCleared "allocated-not-cleared" AllocateZero ANY
            "a folio that fallocate allocates is marked up to date, so that nobody clears it any more";

        AllocateLastMissed "allocate-last-missed" FallocatePages ANY
            "fallocate does not allocate the last page of its range";
        AllocatePastEndAccepted "allocate-past-end-accepted" FallocateArguments ANY
            "fallocate accepts a range that reaches past the end of the file, and allocates what there is of it";

        // The descriptor.
        CreationFlagIgnored "creation-flag-ignored" CreateArguments ANY
            "KVM_CREATE_GUEST_MEMFD ignores flags that mean nothing";
        PrivateMmapAccepted "private-mmap-accepted" DescriptorCalls ANY
            "the host may map the file privately";
        TruncateAccepted "truncate-accepted" DescriptorCalls ANY
            "ftruncate() succeeds and does nothing";
        ClosedFaultAddress "closed-fault-address" DescriptorClosed ANY
            "KVM_EXIT_MEMORY_FAULT gives address 0 when the memslot's file is gone";
        ClosedIsMmio "closed-is-mmio" DescriptorClosed UPSTREAM
            "a guest access is KVM_EXIT_MMIO when the memslot's file is gone";

        // Memslots.
        ReadonlySlotAccepted "readonly-slot-accepted" MemslotFlags ANY
            "KVM_MEM_READONLY is accepted together with KVM_MEM_GUEST_MEMFD";
        OffsetIsGuestAddress "offset-is-guest-address" MemslotFileOffset ANY
            "offset counts from where the memslot starts, not from where the file starts";
        GuestIgnoresFileOffset "guest-ignores-file-offset" MemslotFileOffset ANY
            "guest faults ignore the memslot's offset into the file";
        ForeignFileBound "foreign-file-bound" MemslotOtherVm ANY
            "a VM can make a memslot of another one's guest_memfd";
        BindOverlapAccepted "bind-overlap-accepted" MemslotRefused ANY
            "two memslots may be bound to the same part of a file";
        BindOverflowAccepted "bind-overflow-accepted" MemslotRefused ANY
            "a memslot may reach past the end of the file: the sum is compared as a signed number";
        BindRangeIsEbadf "bind-range-is-ebadf" MemslotRefused ANY
            "a memslot that reaches past the end of the file is refused with EBADF, the error of the check before";
        RecreatedResetsAttributes "recreated-resets-attributes" MemslotRecreated ANY
            "deleting a memslot resets the attributes of its pages";
        DeletedFreesMemory "deleted-frees-memory" MemslotRecreated ANY
            "deleting a memslot frees the memory of its pages";
        DeletedIsMemoryFault "deleted-is-memory-fault" MemslotDeleted ANY
            "a guest access where a memslot was deleted is KVM_EXIT_MEMORY_FAULT instead of KVM_EXIT_MMIO";
        PreFaultLastMissed "pre-fault-last-missed" PrefaultPages ANY
            "KVM_PRE_FAULT_MEMORY leaves out the last page of several, and says that nothing is left to do";
        MmioFaultsFirst "mmio-faults-first" MemslotDeleted ANY
            "the first guest access to an address without a memslot is KVM_EXIT_MEMORY_FAULT, and only the next one MMIO";
        MmioAddressTruncated "mmio-address-truncated" MemslotDeleted ANY
            "KVM_EXIT_MMIO gives only the lower 32 bits of the address";
        DeletedStaysBound "deleted-stays-bound" MemslotRecreated ANY
            "deleting a memslot leaves its binding behind, so that recreating it gives EEXIST";

        // Capabilities.
        CapabilityAttributesMissing "capability-attributes-missing" CapabilityAgrees ANY
            "the capability for per-page attributes reads 0 although the call works";
        CapabilityModesMissing "capability-modes-missing" CapabilityAgrees MODES
            "the capability for content modes does not report PRESERVE";
        CapabilityModesOnDefault "capability-modes-on-default" CapabilityAgrees MODES
            "the capability for content modes ignores the VM's type";
    }
    encrypted {
        // What the hardware takes for the guest's.
        StaysUsable "stays-usable" CocoAcceptance ANY TDX
            "a conversion to shared leaves the page mapped in the secure EPT";
        TakesBackFirstOnly "takes-back-first-only" CocoAcceptance ANY TDX
            "a conversion to shared takes only the first page of the range back from the guest";
        TakesBackPageBefore "takes-back-page-before" CocoAcceptance ANY COCO
            "a conversion to shared takes the page before the range back from the guest, too";
        TakesBackLargePage "takes-back-large-page" CocoAcceptance ANY COCO
            "a conversion to shared takes all of the 2 MiB around the range back from the guest";
        PunchStaysOwned "punch-stays-owned" CocoAcceptance ANY COCO
            "memory that is punched out is not taken back from the guest, so that what comes in its place counts as accepted";
        AcceptanceNotRequired "acceptance-not-required" CocoAcceptance ANY COCO
            "a fault on a private page makes it usable at once, accepted or not";
        MixedRangeTakesBack "mixed-range-takes-back" CocoMixedRange UPSTREAM COCO
            "converting a mixed range to private takes the private pages in it back from the guest";
        NoopTakesBack "noop-takes-back" CocoMixedRange UPSTREAM COCO
            "converting to private what is private already takes it back from the guest";
        MixedRangeLost "mixed-range-lost" CocoMixedRange UPSTREAM COCO
            "converting a mixed range to private invalidates what an encrypted guest has in private use there";

        // What is in pages, and for whom.
        AcceptKeepsContents "accept-keeps-contents" CocoAcceptedZero ANY TDX
            "a page is not cleared when a TD accepts it";
        AcceptClearsHalf "accept-clears-half" CocoAcceptedZero ANY TDX
            "only the first half of a page is cleared when a TD accepts it";
        PlaintextLeftBehind "plaintext-left-behind" CocoConfidential ANY COCO
            "a conversion to shared leaves the page's contents decrypted";
        PlaintextInLastBlock "plaintext-in-last-block" CocoConfidential ANY COCO
            "a conversion to shared leaves the last 64 bytes of the page decrypted";
        SharedAliasElsewhere "shared-alias-elsewhere" MemorySame ANY COCO
            "once a page was private, the guest's shared alias of it is other memory than the host's";
        ZeroForgottenForOwned "zero-forgotten-for-owned" ZeroToShared MODES COCO
            "ZERO leaves the pages that were the guest's as the change of the RMP or the secure EPT left them";
        ZeroOnlyForOwned "zero-only-for-owned" ZeroToShared MODES COCO
            "ZERO to shared leaves pages alone that the guest has never had in private use";

        // Content modes.
        PreserveAtRunTime "preserve-at-run-time" ModeRefused MODES COCO
            "PRESERVE to private is accepted after the launch is finished";
        PreserveToSharedAccepted "preserve-to-shared-accepted" ModeRefused MODES COCO
            "PRESERVE to shared is accepted, and preserves what nobody can read";
        EarlyZeroAccepted "early-zero-accepted" ZeroToPrivateRefused MODES COCO
            "ZERO to private is accepted as long as the launch is not finished";
        EarlyPreserveRefused "early-preserve-refused" CocoLaunchPreserve V5 COCO
            "PRESERVE to private is refused before the launch is finished, too";
        EarlyPreserveLosesLastWord "early-preserve-loses-last-word" CocoLaunchPreserve V5 COCO
            "PRESERVE to private before the launch is finished clears the last word of each folio";
        CapabilityModesNotEncrypted "capability-modes-not-encrypted" CapabilityAgrees MODES COCO
            "the capability for content modes reads 0 on the VMs of encrypted guests";

        // The launch.
        LaunchLosesLastWord "launch-loses-last-word" CocoLaunchExact ANY COCO
            "a launch call clears the last word of each page";
        LaunchSourceStuck "launch-source-stuck" CocoLaunchExact ANY COCO
            "from the 33rd page of a launch call on the contents are those of the first 32 again";
        LaunchProgressOverstated "launch-progress-overstated" CocoLaunchExact ANY COCO
            "a launch call that stops after 32 pages says that it has done them all";
        LaunchInPlaceCleared "launch-in-place-cleared" CocoLaunchInPlace UPSTREAM COCO
            "a launch call without a source clears the page first";
        LaunchTakesShared "launch-takes-shared" CocoLaunchRefused ANY COCO
            "a launch call takes pages that are shared";
        LaunchNeverEnds "launch-never-ends" CocoLaunchRefused ANY COCO
            "a launch call takes pages when the launch is finished";
        LaunchChecksFirstOnly "launch-checks-first-only" CocoLaunchRefused ANY COCO
            "a launch call looks only at its first page to see whether it is private";
        LaunchAgain "launch-again" CocoLaunchRefused ANY COCO
            "a launch call takes pages that are part of the launch already, with other contents";
        LaunchEmptyAccepted "launch-empty-accepted" CocoLaunchArguments ANY COCO
            "a launch call of length 0 succeeds";
        LaunchFlagsIgnored "launch-flags-ignored" CocoLaunchArguments ANY COCO
            "a launch call ignores flags that mean nothing";
        LaunchTypeIgnored "launch-type-ignored" CocoLaunchArguments ANY SNP
            "a launch call takes pages of a type that is none for normal ones";
        LaunchAddressRounded "launch-address-rounded" CocoLaunchArguments ANY TDX
            "a launch call rounds an address that is no multiple of a page";
        LaunchLengthRounded "launch-length-rounded" CocoLaunchArguments ANY SNP
            "a launch call rounds a length that is no multiple of a page";
        LaunchSourceRounded "launch-source-rounded" CocoLaunchArguments ANY COCO
            "a launch call rounds the address of its source";
        LaunchSkipsNowhere "launch-skips-nowhere" CocoLaunchArguments ANY COCO
            "a launch call counts pages where no memslot is as done";
        LaunchSkipsSource "launch-skips-source" CocoLaunchArguments ANY COCO
            "a launch call launches what a page holds if its source cannot be read";
        LaunchSourceNotAdvanced "launch-source-not-advanced" CocoLaunchProgress ANY COCO
            "a launch call writes back the source's address as it was";
        LaunchInPlaceAdvances "launch-in-place-advances" CocoLaunchProgress AFTER_V4 COCO
            "a launch call without a source writes back an address that it has advanced from 0";
        LaunchStopCounted "launch-stop-counted" CocoLaunchProgress ANY COCO
            "a launch call counts the page that it stops at as done";
        LaunchWritesSource "launch-writes-source" CocoLaunchSource ANY SNP
            "the firmware's correction of a CPUID page is written to a source that cannot be written";
        ContextMoved "context-moved" CocoContext ANY COCO
            "another VM can take over a guest's encryption context";
        ContextCopied "context-copied" CocoContext ANY COCO
            "another VM can share a guest's encryption context";
        FinishedAgain "finished-again" CocoFinishedOnce ANY COCO
            "a second call to finish the launch succeeds";

        // Exits.
        FaultFlagMissing "fault-flag-missing" CocoMemoryFault ANY COCO
            "KVM_EXIT_MEMORY_FAULT does not say that the access was a private one";
        FaultFlagAlways "fault-flag-always" CocoMemoryFault ANY COCO
            "KVM_EXIT_MEMORY_FAULT says of every access that it was a private one";
        FaultAddressOfAccess "fault-address-of-access" CocoMemoryFault ANY COCO
            "KVM_EXIT_MEMORY_FAULT gives the address of the access instead of the page's";
        FaultSizeOfAccess "fault-size-of-access" CocoMemoryFault ANY COCO
            "KVM_EXIT_MEMORY_FAULT gives the size of the access instead of the page's";
        FaultKeepsAliasBit "fault-keeps-alias-bit" CocoMemoryFault ANY COCO
            "the address of KVM_EXIT_MEMORY_FAULT has the C-bit or the shared bit in it";
        FaultConvertsItself "fault-converts-itself" CocoMemoryFault ANY COCO
            "KVM converts a page that is accessed through the wrong alias instead of asking the host";
        SharedAliasStays "shared-alias-stays" CocoMemoryFault ANY COCO
            "a conversion to private leaves the page mapped where the guest has its shared memory";
        PrivateAliasStays "private-alias-stays" CocoMemoryFault ANY COCO
            "a conversion to shared leaves the page mapped where the guest has its private memory";
        RequestFirstPageOnly "request-first-page-only" CocoGuestConverts ANY COCO
            "a guest's request for a conversion reaches the host with its first page only";
        RequestLastPageMissed "request-last-page-missed" CocoGuestConverts ANY COCO
            "a guest's request for a conversion of several pages reaches the host without the last";
        RequestDirectionInverted "request-direction-inverted" CocoGuestConverts ANY COCO
            "a guest's request for private memory reaches the host as one for shared memory, and the other way round";
        RequestKeepsSharedBit "request-keeps-shared-bit" CocoGuestConverts ANY TDX
            "a TD's request for shared memory reaches the host with the shared bit in its address";
        RequestPartsFromStart "request-parts-from-start" CocoGuestConverts ANY COCO
            "when a request takes several exits each of them begins where the request does";
        RequestAnswerIgnored "request-answer-ignored" CocoGuestConverts ANY COCO
            "the guest is told that its request was granted whatever the host answers";
        RequestRetryLost "request-retry-lost" CocoGuestConverts ANY TDX
            "a TD is told that its request was bad when the host asks it to try again";
        RequestRefusalRetried "request-refusal-retried" CocoGuestConverts ANY TDX
            "a TD is told to try again whatever the error is that the host answers with";
        RequestByMsrDropped "request-by-msr-dropped" CocoGuestConverts ANY SNP
            "a page state change by the GHCB's MSR protocol is granted without asking the host";
        RequestReservedBit "request-reserved-bit" CocoGuestConverts ANY COCO
            "a guest's request reaches the host with a reserved bit among its attributes";
        RequestPageSizeWrong "request-page-size-wrong" CocoRequestList ANY SNP
            "a request for pages of 4 KiB reaches the host as one for pages of 2 MiB, and the other way round";
        MapGpaRetriesFromStart "map-gpa-retries-from-start" CocoGuestConverts ANY TDX
            "a TD that is to try again is told the start of its request instead of where the host stopped";
        PscMergesApart "psc-merges-apart" CocoRequestList ANY SNP
            "entries of a page state change reach the host as one range although there is something between them";
        PscMergesDirections "psc-merges-directions" CocoRequestList ANY SNP
            "entries of a page state change reach the host as one range although one is to private and one to shared";
        PscCurrentIgnored "psc-current-ignored" CocoRequestList ANY SNP
            "a page state change begins with the first entry of the list instead of the current one";
        PscErrorCounted "psc-error-counted" CocoRequestList ANY SNP
            "entries that the host has refused count as done";
        PscStopsAtChange "psc-stops-at-change" CocoRequestList ANY SNP
            "a page state change ends with the first range of the list";
        PscScratchAnywhere "psc-scratch-anywhere" CocoRequestRefused ANY SNP
            "the list of a page state change may be outside the GHCB";
        PscRoomIgnored "psc-room-ignored" CocoRequestRefused ANY SNP
            "the list's last entry is compared with the most that there can be, wherever the list begins";
        PscLastNotChecked "psc-last-not-checked" CocoRequestRefused ANY SNP
            "the list's last entry is not checked";
        PscUnaligned "psc-unaligned" CocoRequestRefused ANY SNP
            "an entry for 2 MiB may begin at any page";
        PscMsrAnyOperation "psc-msr-any-operation" CocoRequestRefused ANY SNP
            "the MSR protocol takes an operation that is none for one to shared";
        PreFaultInLaunch "pre-fault-in-launch" PrefaultLaunch ANY COCO
            "KVM_PRE_FAULT_MEMORY takes pages of an encrypted guest while the launch is not finished";
        PreFaultAccepts "pre-fault-accepts" CocoAcceptance ANY COCO
            "a private page that was pre-faulted counts as accepted by the guest";
        AcceptedAgain "accepted-again" CocoAcceptance ANY COCO
            "a page that one vCPU has accepted can be accepted by another, which is told that it was the first";
        MapGpaEmpty "map-gpa-empty" CocoRequestRefused ANY TDX
            "MapGPA of no bytes succeeds";
        MapGpaWraps "map-gpa-wraps" CocoRequestRefused ANY TDX
            "MapGPA takes a range that wraps around 64 bits";
        MapGpaCrosses "map-gpa-crosses" CocoRequestRefused ANY TDX
            "MapGPA takes a range that ends in the other half of the address space";
        MapGpaRounded "map-gpa-rounded" CocoRequestRefused ANY TDX
            "MapGPA rounds addresses and sizes that are no multiples of a page";
    }
    liberties {
        UnspecifiedKeeps "unspecified-keeps" UnspecifiedStable MODES
            "mode unspecified leaves the contents";
        UnspecifiedZeroes "unspecified-zeroes" UnspecifiedStable MODES
            "mode unspecified clears the folios";
        UnspecifiedChangedOnly "unspecified-changed-only" UnspecifiedStable MODES
            "mode unspecified scrambles only the pages whose attribute changes";
        UnspecifiedOneWay "unspecified-one-way" UnspecifiedStable MODES
            "mode unspecified scrambles only on the way to private";
        UnspecifiedFirstWord "unspecified-first-word" UnspecifiedStable MODES
            "mode unspecified scrambles only the first word of each folio";
        HolesAllocated "holes-allocated" ConvertHoles ANY
            "a conversion allocates the holes of a short range, cleared";
        ScrambleFillsHoles "scramble-fills-holes" ConvertHoles MODES
            "mode unspecified allocates the holes of a short range and fills them with random bytes";
        AllocatedScrambled "allocated-scrambled" ConvertHoles MODES
            "mode unspecified fills what fallocate allocated with random bytes, too";
        EagainBeforeRefusal "eagain-before-refusal" ModeRefused MODES
            "the first conversion to private of each file is refused with EAGAIN, also one whose mode is not offered";
        SpuriousEagain "spurious-eagain" InUseRetry ANY
            "the first conversion to private of each file is refused once, as if a page were in flight";
        ChecksReordered "checks-reordered" ArgumentsNoEffect ANY
            "the argument checks that give EINVAL are made in the opposite order";
        EverythingZapped "everything-zapped" HostAccessShared ANY
            "a conversion unmaps all of the file from the host, which faults it in again";
        SharedFromUserspaceAddress "shared-from-userspace-address" GuestAccess ANY
            "guest accesses to shared pages are served through the memslot's userspace_addr, a mapping of the same memory";
        AllocateClears "allocate-clears" AllocateZero ANY
            "fallocate clears the folios at once, and mode unspecified leaves them alone";
        WrittenBackOnEinval "written-back-on-einval" ArgumentsNoEffect ANY
            "the argument is written back unchanged on EINVAL";
        DrainedLate "drained-late" InUseRetry ANY
            "a folio that was never checked before counts as in use once, until the per-CPU batches are drained";
        ReclaimedCleared "reclaimed-cleared" CocoConfidential ANY
            "a conversion to shared clears what was the guest's, as KVM does where the CPU needs it";
        MixedRangeTakenBack "mixed-range-taken-back" CocoAcceptance MODES
            "converting a mixed range to private takes the private pages in it back from the guest, which accepts them anew";
        RequestPagewise "request-pagewise" CocoGuestConverts ANY
            "a guest's request for a conversion reaches the host page by page";
        LaunchPiecemeal "launch-piecemeal" CocoLaunchExact ANY
            "a launch call does one page, as if interrupted then, and says so";
        LaunchBusy "launch-busy" CocoLaunchExact ANY
            "the first call that finishes a launch finds a vCPU or the module busy";
        SeptVeNotOffered "sept-ve-not-offered" CocoAcceptance ANY
            "a TD cannot do without #VE for pages that it has not accepted";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names are unique kebab-case words and lead back to their fault; bugs and liberties do not overlap.
    #[test]
    fn names_identify() {
        for fault in Fault::ALL.iter().chain(Fault::BENIGN) {
            assert_eq!(Fault::from_name(fault.name()), Some(*fault));
            let kebab = |c: char| c.is_ascii_lowercase() || c == '-';
            assert!(fault.name().chars().all(kebab), "{}", fault.name());
            assert!(!fault.doc().contains('\n'));
        }
        assert!(Fault::ALL.iter().all(|fault| !fault.is_benign()));
        assert_eq!(Fault::from_name("no-such-fault"), None);
    }
}
