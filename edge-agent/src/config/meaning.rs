//! What a tag is to people: its unit, the tag in words, and the range that displays show. It goes where the value goes: page, API, births,
//! metadata.

use super::plan::Meaning;
use super::raw;
use super::tags::DeviceReader;
use super::values::Spanned;
use device_drivers::modbus::DataType;
use std::collections::HashMap;
use std::sync::Arc;

/// Characters of a unit: it stands beside every value.
pub const UNIT_MAX: usize = 40;
/// Characters of a description: a sentence, not a manual.
pub const DESCRIPTION_MAX: usize = 400;

type Key = (Option<String>, Option<String>, [Option<u64>; 2]);

/// One meaning for a tag that a hundred devices have.
#[derive(Default)]
pub(super) struct Meanings(HashMap<Key, Arc<Meaning>>);

impl Meanings {
    fn get(&mut self, meaning: Meaning) -> Arc<Meaning> {
        let ends = [meaning.low, meaning.high].map(|end| end.map(f64::to_bits));
        let key = (meaning.unit.clone(), meaning.description.clone(), ends);
        self.0.entry(key).or_insert_with(|| Arc::new(meaning)).clone()
    }
}

impl DeviceReader<'_> {
    /// That of the point that was added last.
    pub(super) fn meaning(&mut self, raw: &raw::Tag) {
        let unit = self.words(&raw.unit, "this unit cannot be shown", UNIT_MAX);
        let description = self.words(&raw.description, "this description cannot be shown", DESCRIPTION_MAX);
        let (low, high) = (self.end(&raw.low), self.end(&raw.high));
        if let (Some(low), Some(high), Some(given)) = (low, high, &raw.low)
            && low >= high
        {
            self.problem(given.span(), "low is not less than high", format!("{low} to {high} is no range"));
        }
        let meaning = Meaning { unit, description, low, high };
        if meaning == Meaning::default() {
            return;
        }
        let meaning = self.names.1.get(meaning);
        self.out.points.last_mut().into_iter().for_each(|point| point.meaning = Some(meaning.clone()));
    }

    /// Only numbers have a range.
    pub(super) fn range_is_a_number_s(&mut self, raw: &raw::Tag, kind: DataType) {
        let given = [&raw.low, &raw.high].into_iter().flatten().next();
        if let Some(given) = given.filter(|_| !kind.is_number()) {
            self.problem(given.span(), "only numbers have a range", format!("this tag is {kind}"));
        }
    }

    fn words(&mut self, given: &Option<Spanned<String>>, title: &str, most: usize) -> Option<String> {
        let given = given.as_ref()?;
        let text = given.get_ref().trim();
        let length = text.chars().count();
        if length > most {
            self.problem(given.span(), title, format!("it has {length} characters, and may have {most}"));
        } else if text.is_empty() {
            self.problem(given.span(), title, "it is empty: leave it out");
        } else if let Some(control) = text.chars().find(|c| c.is_control()) {
            let label = format!("it has the control character {}", control.escape_unicode());
            self.problem(given.span(), title, label);
        }
        Some(text.to_string())
    }

    fn end(&mut self, given: &Option<Spanned<f64>>) -> Option<f64> {
        let given = given.as_ref()?;
        if !given.get_ref().is_finite() {
            self.problem(given.span(), "this is no end of a range", format!("found {}", given.get_ref()));
        }
        Some(*given.get_ref())
    }
}
