//! How much a server takes: in one call, and in all.
//!
//! ```text
//!   what its kind is known for (Vendor)  ──┐
//!   what it says of itself (OperationLimits) ──┴──> the smaller of the two ──> Limits
//!   what it refuses (BadTooManyOperations ..) ──> halved, down to one
//! ```

use super::Vendor;
use opcua::types::{DataValue, NodeId, StatusCode, VariableId, Variant};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Where a server says what it takes in one call (OPC 10000-5, 6.3.11), in the order of [`Call`].
pub(super) const OPERATION_LIMITS: [VariableId; 4] = [
    VariableId::Server_ServerCapabilities_OperationLimits_MaxNodesPerRead,
    VariableId::Server_ServerCapabilities_OperationLimits_MaxNodesPerWrite,
    VariableId::Server_ServerCapabilities_OperationLimits_MaxNodesPerBrowse,
    VariableId::Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall,
];

/// A call that takes many things at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Read = 0,
    Write = 1,
    Browse = 2,
    Monitor = 3,
}

/// What a kind of server is known for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Nodes in one call, whatever the call.
    pub per_call: usize,
    /// Monitored items in all.
    pub items: usize,
    /// Whether it filters by deadband.
    pub filters: bool,
}

impl Vendor {
    /// Its profile.
    ///
    /// S7-1200: "Micro Embedded Device" profile without data-change filter; 1,000 items in all and 100 in a call is where users report
    /// that it goes on working (server profiles of benthos-umh). S7-1500: 1,000 in a call; 10,000 items in a
    /// subscription is a third party's figure for the largest CPU; a smaller one answers `BadTooManyMonitoredItems`, which is taken at its word.
    pub const fn profile(self) -> Profile {
        match self {
            Vendor::Generic => Profile { per_call: 1000, items: usize::MAX, filters: true },
            Vendor::S71200 => Profile { per_call: 100, items: 1000, filters: false },
            Vendor::S71500 => Profile { per_call: 1000, items: 10_000, filters: true },
        }
    }
}

/// How much goes into each call to one server.
#[derive(Debug)]
pub(super) struct Limits {
    per_call: [AtomicUsize; 4],
    pub(super) items: usize,
    pub(super) filters: bool,
}

impl Limits {
    pub(super) fn of(vendor: Vendor) -> Limits {
        let profile = vendor.profile();
        Limits {
            per_call: std::array::from_fn(|_| AtomicUsize::new(profile.per_call)),
            items: profile.items,
            filters: profile.filters,
        }
    }

    /// Takes what the server says of itself; 0 or nothing means that it does not say.
    pub(super) fn heed(&self, said: &[DataValue]) {
        for (limit, said) in self.per_call.iter().zip(said) {
            let said = match said.value {
                Some(Variant::UInt32(n)) if n > 0 => usize::try_from(n).unwrap_or(usize::MAX),
                _ => continue,
            };
            limit.fetch_min(said, Ordering::Relaxed);
        }
    }

    pub(super) fn per_call(&self, call: Call) -> usize {
        self.per_call.get(call as usize).map_or(1, |n| n.load(Ordering::Relaxed)).max(1)
    }

    /// A call with so many was refused. Whether it is worth trying again with fewer.
    pub(super) fn fewer(&self, call: Call, had: usize, status: StatusCode) -> bool {
        let too_many = matches!(
            status,
            StatusCode::BadTooManyOperations
                | StatusCode::BadRequestTooLarge
                | StatusCode::BadResponseTooLarge
                | StatusCode::BadTcpMessageTooLarge
                | StatusCode::BadEncodingLimitsExceeded
        );
        if !too_many || had <= 1 {
            return false;
        }
        if let Some(limit) = self.per_call.get(call as usize) {
            limit.fetch_min(had / 2, Ordering::Relaxed);
        }
        true
    }
}

pub(super) fn node(id: VariableId) -> NodeId {
    id.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(n: u32) -> DataValue {
        DataValue { value: Some(Variant::UInt32(n)), ..DataValue::default() }
    }

    #[test]
    fn the_smaller_of_what_is_known_and_what_is_said_counts_and_zero_says_nothing() {
        let limits = Limits::of(Vendor::S71200);
        limits.heed(&[said(50), said(0), DataValue::default(), said(5000)]);
        let all = [Call::Read, Call::Write, Call::Browse, Call::Monitor].map(|c| limits.per_call(c));
        assert_eq!(all, [50, 100, 100, 100]);
        assert_eq!((limits.items, limits.filters), (1000, false));
    }

    #[test]
    fn what_is_refused_as_too_much_is_halved_down_to_one() {
        let limits = Limits::of(Vendor::Generic);
        let mut had = limits.per_call(Call::Read);
        let mut tries = 0;
        while limits.fewer(Call::Read, had, StatusCode::BadTooManyOperations) {
            had = limits.per_call(Call::Read);
            tries += 1;
        }
        assert_eq!((had, tries), (1, 9));
        assert_eq!(limits.per_call(Call::Write), 1000, "other calls are not concerned");
        assert!(!limits.fewer(Call::Write, 1000, StatusCode::BadUserAccessDenied));
    }
}
