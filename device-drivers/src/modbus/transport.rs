//! Where a line is: TCP, TLS, a serial port, or serial frames through TCP; and how it is opened.

use crate::dial;
use crate::tls::Tls;
use std::fmt;
use std::io::ErrorKind;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_serial::{DataBits, Parity, SerialPortBuilderExt, StopBits};

/// A serial port's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serial {
    /// The port, as in `/dev/ttyUSB0`.
    pub path: String,
    /// Bits a second.
    pub baud: u32,
    /// `'N'`, `'E'` or `'O'`.
    pub parity: char,
    /// One or two.
    pub stop_bits: u8,
}

impl Serial {
    /// The silence between frames: 3.5 characters of 11 bits, and 1.75 ms from 19,200 bit/s on
    /// (Modbus over Serial Line V1.02, 2.5.1.1).
    pub fn silence(&self) -> Duration {
        if self.baud > 19_200 {
            Duration::from_micros(1750)
        } else {
            Duration::from_secs_f64(3.5 * 11.0 / f64::from(self.baud.max(1)))
        }
    }

    /// Time so many bytes take on the wire.
    pub fn takes(&self, bytes: usize) -> Duration {
        Duration::from_secs_f64(bytes as f64 * 11.0 / f64::from(self.baud.max(1)))
    }
}

/// Where a line is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Modbus TCP at `host:port`.
    Tcp(String),
    /// Modbus/TCP Security at `host:port`.
    Tls(String, Tls),
    /// RTU frames through a TCP connection to `host:port`.
    RtuOverTcp(String),
    /// RTU at a serial port.
    Rtu(Serial),
}

/// A connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Endpoint {
    /// Whether frames carry a transaction id, so that a late reply can be told from the one that is waited for.
    pub fn has_transactions(&self) -> bool {
        matches!(self, Endpoint::Tcp(_) | Endpoint::Tls(..))
    }

    /// `host:port`, where there is one.
    pub fn host_port(&self) -> Option<&str> {
        match self {
            Endpoint::Tcp(at) | Endpoint::Tls(at, _) | Endpoint::RtuOverTcp(at) => Some(at),
            Endpoint::Rtu(_) => None,
        }
    }

    /// Silence that has to be kept before a request.
    pub fn silence(&self) -> Duration {
        match self {
            Endpoint::Rtu(serial) => serial.silence(),
            _ => Duration::ZERO,
        }
    }

    /// Time that a request and its reply of so many bytes take on the wire.
    pub(super) fn takes(&self, asked: usize, answered: usize) -> Duration {
        match self {
            Endpoint::Rtu(serial) => serial.takes(asked + answered),
            _ => Duration::ZERO,
        }
    }

    /// Opens the connection; the text says what a technician can look at.
    pub(super) async fn open(&self, limit: Duration) -> Result<Box<dyn Stream>, String> {
        match self {
            Endpoint::Tcp(at) | Endpoint::RtuOverTcp(at) => Ok(Box::new(tcp(at, limit).await?)),
            Endpoint::Tls(at, files) => {
                let host = at.rsplit_once(':').map_or(at.as_str(), |(host, _)| host);
                let stream = tcp(at, limit).await?;
                Ok(Box::new(files.connect(host, stream, limit).await?))
            }
            Endpoint::Rtu(serial) => {
                let parity = match serial.parity {
                    'N' => Parity::None,
                    'O' => Parity::Odd,
                    _ => Parity::Even,
                };
                let stop_bits = if serial.stop_bits == 2 { StopBits::Two } else { StopBits::One };
                let port = tokio_serial::new(&serial.path, serial.baud)
                    .data_bits(DataBits::Eight)
                    .parity(parity)
                    .stop_bits(stop_bits)
                    .open_native_async()
                    .map_err(|e| {
                        format!("{e}; is the adapter plugged in, and may this user open it (group dialout)?")
                    })?;
                Ok(Box::new(port))
            }
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp(at) => f.write_str(at),
            Endpoint::Tls(at, _) => write!(f, "tls://{at}"),
            Endpoint::RtuOverTcp(at) => write!(f, "rtu-over-tcp://{at}"),
            Endpoint::Rtu(serial) => write!(f, "{}", serial.path),
        }
    }
}

async fn tcp(at: &str, limit: Duration) -> Result<TcpStream, String> {
    dial(at, limit).await.map_err(|e| match e.kind() {
        ErrorKind::ConnectionRefused => {
            "the host answers, but nothing listens on this port; is Modbus TCP switched on in the device?".into()
        }
        ErrorKind::TimedOut => format!("{e}; is the device powered and on this network?"),
        _ => format!("{e}; check the address, the cable and the switch"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_silence_is_that_of_the_serial_line_guide() {
        let at = |baud| Serial { path: String::new(), baud, parity: 'E', stop_bits: 1 }.silence().as_micros();
        assert_eq!((at(9600), at(19_200), at(115_200)), (4010, 2005, 1750));
    }
}
