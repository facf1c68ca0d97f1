//! See [`crate::fuzzing`].

use super::decode::{Sight, reading_of};
use super::session::Namespaces;
use crate::value::PointId;
use opcua::types::{BinaryDecodable, ContextOwned, DataValue};

/// Any bytes as a DataValue behind eight of a server's clock: what the library makes of them becomes a reading, or nothing.
pub fn opcua_value(bytes: &[u8]) {
    let Some((skew, mut bytes)) = bytes.split_first_chunk() else { return };
    let context = ContextOwned::default();
    if let Ok(data) = DataValue::decode(&mut bytes, &context.context()) {
        let (skew, names) = (i64::from_le_bytes(*skew), Namespaces::default());
        let reading = reading_of(PointId(1), data, Sight { skew, names: &names });
        let _ = reading.value.map(|v| v.to_string());
    }
}
