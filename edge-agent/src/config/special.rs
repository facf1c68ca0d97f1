//! What few Modbus tags have: patterns that mean "no value", and a register that says how they are scaled.

use super::raw;
use super::report::closest;
use super::tags::DeviceReader;
use super::values::Spanned;
use device_drivers::modbus::{Absent, Address, DataType, Special, Written};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Misspelt names that are guessed at.
const GUESSES_MAX: usize = 20;

impl DeviceReader<'_> {
    /// What a profile says of all its tags.
    pub(super) fn absent_of_all(&mut self, given: Option<&Spanned<Vec<String>>>) {
        let Some(given) = given else { return };
        if !self.is_modbus() {
            self.problem(given.span(), "this key belongs to Modbus", "the device speaks OPC UA");
        }
        for text in given.get_ref() {
            // Whatever its width: this only asks whether it can be read at all.
            if let Err(why) = Absent::default().add(text, DataType::U16) {
                self.problem(given.span(), "this is no pattern of an absent value", why);
            }
        }
        self.absent.clone_from(given.get_ref());
    }

    /// What is special about a tag; shared by all that have the same.
    pub(super) fn special(&mut self, raw: &raw::Tag, kind: DataType, address: Address) -> Option<Arc<Special>> {
        let special = Special { absent: self.patterns(raw, kind, address), power: self.power(raw, kind) };
        if special == Special::default() {
            return None;
        }
        let known = self.names.2.iter().find(|s| ***s == special).cloned();
        Some(known.unwrap_or_else(|| {
            let special = Arc::new(special);
            self.names.2.push(special.clone());
            special
        }))
    }

    fn patterns(&mut self, raw: &raw::Tag, kind: DataType, address: Address) -> Absent {
        let mut absent = Absent::default();
        let Some(given) = &raw.absent else {
            for text in self.absent.iter().filter(|_| !address.table.is_bits()) {
                let _ = absent.add(text, kind); // what is wrong with it has been said of the profile
            }
            return absent;
        };
        for text in given.get_ref() {
            let label = match absent.add(text, kind) {
                Ok(_) if address.table.is_bits() => "this tag is one bit: both of its states are values".into(),
                Ok(true) => continue,
                Ok(false) => format!("\"{text}\" is no pattern of {kind}, which has {} bits", kind.registers() * 16),
                Err(why) => why,
            };
            self.problem(given.span(), "this is no pattern of an absent value", label);
        }
        absent
    }

    /// Looks for the tags that say how others of this file are scaled.
    pub(super) fn find_powers(&mut self, tags: &[raw::Tag]) {
        let wanted: HashSet<&str> =
            tags.iter().filter_map(|t| Some(t.scale_from.as_ref()?.get_ref().as_str())).collect();
        self.powers = HashMap::new();
        for tag in tags.iter().filter(|t| wanted.contains(t.name.get_ref().as_str())) {
            self.powers.insert(tag.name.get_ref().clone(), place_of_power(tag));
        }
        let names: Vec<&str> = tags.iter().map(|t| t.name.get_ref().as_str()).collect();
        let unknown: Vec<&str> = wanted.into_iter().filter(|text| !self.powers.contains_key(*text)).collect();
        for (n, text) in unknown.into_iter().enumerate() {
            // Each looks through all names: a few are help, thousands are a file that is wrong as a whole.
            let near = if n < GUESSES_MAX { closest(text, &names) } else { None };
            let near = near.map_or(String::new(), |n| format!("; did you mean `{n}`?"));
            self.powers.insert(text.into(), Err(format!("this file has no tag `{text}`{near}")));
        }
    }

    fn power(&mut self, raw: &raw::Tag, kind: DataType) -> Option<Address> {
        let given = raw.scale_from.as_ref()?;
        if !kind.is_number() {
            self.problem(given.span(), "only numbers have a scale", format!("this tag is {kind}"));
        }
        if raw.write.is_some() {
            let label = "what is written would be scaled by what the register said some time ago";
            let help =
                "leave out `write`, or write a tag of its own with the raw number and a fixed `factor`".to_string();
            self.problem_help(given.span(), "a tag with a scale in a register cannot be written", label.into(), help);
        }
        match self.powers.get(given.get_ref())?.clone() {
            Ok(address) => Some(address),
            Err(why) => {
                self.problem(given.span(), "this tag cannot say how others are scaled", why);
                None
            }
        }
    }
}

/// Where a tag is that says how others are scaled.
fn place_of_power(tag: &raw::Tag) -> Result<Address, String> {
    let name = tag.name.get_ref();
    let (Some(address), Some(kind)) = (&tag.address, &tag.kind) else {
        return Err(format!("`{name}` has no address or no type"));
    };
    let plain = tag.factor.is_none() && tag.offset.is_none() && tag.scale_from.is_none();
    if kind.get_ref().parse() != Ok(DataType::I16) || !plain {
        return Err(format!("`{name}` has to be a plain `i16`: the power of ten, from -10 to 10"));
    }
    let written: Written = address.get_ref().parse().map_err(|_| format!("`{name}` has no Modbus address"))?;
    match written.address {
        at if at.table.is_bits() || at.bits.is_some() => Err(format!("`{name}` has to be a whole register")),
        at => Ok(at),
    }
}
