//! One question to a unit: does it speak Modbus at all? For `edge-agent check --connect`, before anything runs.
//!
//! Here tokio-modbus's client is what is wanted: one connection, one request, and both are thrown away.

use crate::dial;
use std::time::Duration;
use tokio::time::timeout;
use tokio_modbus::client::{Reader, tcp};
use tokio_modbus::slave::Slave;

/// Asks unit `unit` at `host:port` for one holding register. An exception is an answer too: somebody is there who speaks Modbus.
/// The text says what came of it.
pub async fn probe(at: &str, unit: u8, limit: Duration) -> Result<String, String> {
    let asking = async {
        let stream = dial(at, limit).await.map_err(|e| e.to_string())?;
        let mut client = tcp::attach_slave(stream, Slave(unit));
        client.read_holding_registers(0, 1).await.map_err(|e| e.to_string())
    };
    match timeout(limit, asking).await {
        Ok(Ok(Ok(_))) => Ok(format!("unit {unit} answers")),
        Ok(Ok(Err(exception))) => {
            Ok(format!("unit {unit} answers (to a read of holding register 0, only to try: {exception})"))
        }
        Ok(Err(why)) => Err(why),
        Err(_) => {
            Err(format!("unit {unit} does not answer within {limit:?}; is `unit` right, does it speak Modbus TCP?"))
        }
    }
}
