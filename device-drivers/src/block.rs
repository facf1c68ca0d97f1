//! The register map of command and status blocks (DESIGN section 4), and the codec of our side of it.
//!
//! The same block travels as holding registers over Modbus and as a `UInt16[]` node over OPC UA. 32-bit numbers stand
//! high word first. plc-sim reads the offsets here, and encodes and decodes with code of its own: two codecs that agree.
//!
//! ```text
//!  command  0      2     3     4      6    7    8      10   11    12           14       17   18
//!           token  beat  flags seq    code pos  load   prog valid issued (ms)  boot ack CRC  commit = seq
//!           of a drive, instead of position, load and program: up to five places, in words 7 to 10 and 16
//!  status   0      2     3     4        6     8     10     11     12    13         14    15    16    18 .. 23
//!           token  beat  boot  time ms  seen  done  result reason mode  interlocks fault state load  process values
//! ```

use control_core::image::{Command, CommandCode, CommandResult, MachineStatus, Mode, PackState, Reason, Stand};
use control_core::units::LoadId;

/// Words of a command block.
pub const COMMAND_WORDS: usize = 20;
/// Words of a status block.
pub const STATUS_WORDS: usize = 24;

/// Word offsets in a command block.
pub mod command {
    /// Owner token, 32 bits.
    pub const TOKEN: usize = 0;
    /// Heartbeat of the owner.
    pub const HEARTBEAT: usize = 2;
    /// Bit 0: authority.
    pub const FLAGS: usize = 3;
    /// Sequence, 32 bits; 0 for no command yet.
    pub const SEQ: usize = 4;
    /// Command code.
    pub const CODE: usize = 6;
    /// Position number.
    pub const POS: usize = 7;
    /// Load id, 32 bits.
    pub const LOAD: usize = 8;
    /// Program number.
    pub const PROGRAM: usize = 10;
    /// Validity, milliseconds.
    pub const VALID_MS: usize = 11;
    /// Controller time at issue, milliseconds, 32 bits.
    pub const ISSUED_MS: usize = 12;
    /// Boot counter of the controller at issue.
    pub const BOOT: usize = 14;
    /// Which leaving of AUTO a person has acknowledged: the machine's own count of them, given back.
    pub const ACKNOWLEDGED: usize = 15;
    /// Of a drive: the places to drive along, nearest first, in these words; [`NO_PLACE`] after the last.
    pub const PATH: [usize; 5] = [7, 8, 9, 10, 16];
    /// No place.
    pub const NO_PLACE: u16 = 0xFFFF;
    /// CRC-16/MODBUS over words 0 to 16, each high byte first.
    pub const CRC: usize = 17;
    /// Sequence again, 32 bits: the block is complete.
    pub const COMMIT: usize = 18;
    /// Flag: machines may act.
    pub const FLAG_AUTHORITY: u16 = 1;
}

/// Word offsets in a status block.
pub mod status {
    /// Highest owner token accepted, 32 bits.
    pub const TOKEN: usize = 0;
    /// Heartbeat of the controller.
    pub const HEARTBEAT: usize = 2;
    /// Boot counter.
    pub const BOOT: usize = 3;
    /// Controller time, milliseconds, 32 bits.
    pub const TIME_MS: usize = 4;
    /// Last sequence seen, 32 bits.
    pub const SEQ_SEEN: usize = 6;
    /// Last sequence ended, 32 bits.
    pub const SEQ_DONE: usize = 8;
    /// Result of the last one.
    pub const RESULT: usize = 10;
    /// Reason of the result.
    pub const REASON: usize = 11;
    /// Operating mode.
    pub const MODE: usize = 12;
    /// Open interlocks.
    pub const INTERLOCKS: usize = 13;
    /// Fault code.
    pub const FAULT: usize = 14;
    /// PackML state.
    pub const STATE: usize = 15;
    /// Load on the deck, 32 bits.
    pub const LOAD: usize = 16;
    /// Position of the axis, millimetres; of a mobile robot the number of the place it has reached last.
    pub const AT: usize = 18;
    /// Speed, millimetres per second, signed.
    pub const SPEED_MM_S: usize = 19;
    /// Motor temperature, tenths of a degree Celsius; of a mobile robot the charge of its battery, thousandths.
    pub const TEMPERATURE_DC: usize = 20;
    /// The charge of a mobile robot's battery, thousandths.
    pub const CHARGE: usize = TEMPERATURE_DC;
    /// Motor current, tenths of an ampere; of a mobile robot where it is in the hall, x in centimetres.
    pub const CURRENT_DA: usize = 21;
    /// Where a mobile robot is in the hall, x in centimetres, signed.
    pub const X_CM: usize = CURRENT_DA;
    /// Commands done since the machine was built, modulo 65536; of a mobile robot where it is in the hall, y in centimetres; of a shuttle
    /// that changes tier where it stands.
    pub const CYCLES: usize = 22;
    /// Where a shuttle stands that changes tier: its tier in the low byte, the lift in the high byte, both while it is between the two.
    pub const STAND: usize = CYCLES;
    /// Where a mobile robot is in the hall, y in centimetres, signed.
    pub const Y_CM: usize = CYCLES;
    /// How often the machine has left AUTO; kept over restarts of the controller.
    pub const AUTO_EXITS: usize = 23;
}

/// Where the rack PLC keeps its blocks and sensors.
pub mod rack_map {
    use super::{COMMAND_WORDS, STATUS_WORDS};

    /// Holding register of machine `n`'s command block; blocks are contiguous.
    pub const fn command_block(n: u16) -> u16 {
        n * COMMAND_WORDS as u16
    }

    /// Input register of machine `n`'s status block; blocks are contiguous.
    pub const fn status_block(n: u16) -> u16 {
        n * STATUS_WORDS as u16
    }

    /// Input register of the load id seen at position `n`, 32 bits.
    pub const fn position(n: u16) -> u16 {
        1000 + 2 * n
    }
}

/// The owner's part of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Token.
    pub token: u32,
    /// Heartbeat.
    pub heartbeat: u16,
    /// Whether machines may act.
    pub authority: bool,
    /// Which leaving of AUTO a person has acknowledged.
    pub acknowledged: u16,
}

/// A command block as words.
pub type CommandBlock = [u16; COMMAND_WORDS];

/// Encodes a command block; without a command it carries the owner alone.
pub fn encode_command(owner: Owner, wanted: Option<Command>) -> CommandBlock {
    use command::*;
    let mut w = [0u16; COMMAND_WORDS];
    put_u32(&mut w, TOKEN, owner.token);
    w[HEARTBEAT] = owner.heartbeat;
    w[ACKNOWLEDGED] = owner.acknowledged;
    w[FLAGS] = if owner.authority { FLAG_AUTHORITY } else { 0 };
    if let Some(c) = wanted {
        put_u32(&mut w, SEQ, c.seq);
        w[CODE] = c.code.word();
        if c.code == CommandCode::Drive {
            for at in PATH {
                w[at] = NO_PLACE;
            }
            for (at, place) in PATH.into_iter().zip(c.path.iter()) {
                w[at] = place;
            }
        } else {
            w[POS] = c.pos.0;
            put_u32(&mut w, LOAD, LoadId::raw(c.load));
            w[PROGRAM] = c.program;
        }
        w[VALID_MS] = c.valid_ms;
        put_u32(&mut w, ISSUED_MS, c.issued_plc_ms);
        w[BOOT] = c.issued_boot;
        put_u32(&mut w, COMMIT, c.seq);
    }
    w[CRC] = crc16(&w[..CRC]);
    w
}

/// Decodes a status block; `None` when it is shorter than [`STATUS_WORDS`].
pub fn decode_status(words: &[u16]) -> Option<MachineStatus> {
    use status::*;
    let w: &[u16; STATUS_WORDS] = words.get(..STATUS_WORDS)?.try_into().ok()?;
    Some(MachineStatus {
        token: get_u32(w, TOKEN),
        heartbeat: w[HEARTBEAT],
        plc_time_ms: get_u32(w, TIME_MS),
        seq_seen: get_u32(w, SEQ_SEEN),
        seq_done: get_u32(w, SEQ_DONE),
        result: CommandResult::from_word(w[RESULT]),
        reason: Reason::from_word(w[REASON]),
        mode: Mode::from_word(w[MODE]),
        interlocks: w[INTERLOCKS],
        fault: w[FAULT],
        state: PackState::from_word(w[STATE]),
        load: LoadId::new(get_u32(w, LOAD)),
        boot: w[BOOT],
        auto_exits: w[AUTO_EXITS],
        at: w[AT],
        charge: w[CHARGE],
        stand: Stand::from_word(w[STAND]),
    })
}

fn put_u32(w: &mut CommandBlock, at: usize, v: u32) {
    w[at] = (v >> 16) as u16;
    w[at + 1] = (v & 0xFFFF) as u16;
}

fn get_u32(w: &[u16; STATUS_WORDS], at: usize) -> u32 {
    u32::from(w[at]) << 16 | u32::from(w[at + 1])
}

/// CRC-16/MODBUS (polynomial 0xA001 reflected, start 0xFFFF; Modbus over Serial Line V1.02, 6.2.2), over words high byte first.
pub fn crc16(words: &[u16]) -> u16 {
    words.iter().flat_map(|w| w.to_be_bytes()).fold(0xFFFF, crc16_step)
}

/// CRC-16 of one byte more; it begins with 0xFFFF.
pub(crate) fn crc16_step(crc: u16, byte: u8) -> u16 {
    (0..8).fold(crc ^ u16::from(byte), |c, _| if c & 1 == 1 { c >> 1 ^ 0xA001 } else { c >> 1 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use control_core::image::Path;
    use control_core::units::PosId;

    #[test]
    fn the_check_sum_is_that_of_the_serial_line_specification() {
        // Modbus over Serial Line V1.02, appendix B: the frame 02 07 is followed by 41 12, low byte first.
        assert_eq!(crc16(&[0x0207]), 0x1241);
        assert_eq!(crc16(&[]), 0xFFFF);
    }

    #[test]
    fn a_command_block_is_laid_out_as_the_map_says() {
        let owner = Owner { token: 0x0001_0002, heartbeat: 7, authority: true, acknowledged: 9 };
        let command = Command {
            seq: 0x000A_000B,
            code: CommandCode::Pick,
            pos: PosId(163),
            load: LoadId::new(0x0003_0004),
            program: 5,
            path: Path::default(),
            valid_ms: 2000,
            issued_plc_ms: 0x0006_0007,
            issued_boot: 8,
        };
        let w = encode_command(owner, Some(command));
        assert_eq!(w[..17], [1, 2, 7, 1, 10, 11, 1, 163, 3, 4, 5, 2000, 6, 7, 8, 9, 0]);
        assert_eq!(w[17], crc16(&w[..17]));
        assert_eq!(w[18..], [10, 11]);
    }

    #[test]
    fn a_drive_names_its_places_and_no_more() {
        let path = Path::of([7u16, 8, 9].into_iter());
        let command = Command { seq: 1, code: CommandCode::Drive, path, ..Command::default() };
        let w = encode_command(Owner::default(), Some(command));
        assert_eq!((w[6], &w[7..11], w[16]), (5, &[7, 8, 9, NO_PLACE_HERE][..], NO_PLACE_HERE));
    }

    const NO_PLACE_HERE: u16 = command::NO_PLACE;

    #[test]
    fn a_short_status_block_is_no_status() {
        let short = [0; STATUS_WORDS - 1];
        assert_eq!(decode_status(&short), None);
        let full = [0; STATUS_WORDS];
        assert_eq!(decode_status(&full).map(|s| (s.seq_seen, s.reason)), Some((0, Reason::None)));
    }
}
