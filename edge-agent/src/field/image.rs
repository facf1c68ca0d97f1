//! From readings to the input image of the control loop.

use crate::config::Role;
use control_core::image::{InputImage, Quality, Stamped};
use control_core::units::{LoadId, MachineId, Millis};
use device_drivers::block::{decode_status, status};
use device_drivers::value::{Reading, Value};
use floor_plan::InputBuffer;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The input image while it is being put together, shared by all lines. The lock is held for a copy.
#[derive(Clone)]
pub struct ImageStage(Arc<Mutex<Stage>>);

struct Stage {
    seen: Seen,
    out: triple_buffer::Input<InputBuffer>,
}

/// The image, and what people see of the machines beside it.
pub(super) struct Seen {
    pub(super) image: InputBuffer,
    /// Where mobile robots say they are in the hall, x and y in centimetres.
    spots: Vec<Option<(i16, i16)>>,
}

impl ImageStage {
    /// A stage for so many machines that hands over through `out`; `empty` is the image in which nothing is known.
    pub fn new(out: triple_buffer::Input<InputBuffer>, empty: InputBuffer, machines: usize) -> ImageStage {
        let seen = Seen { image: empty, spots: vec![None; machines] };
        ImageStage(Arc::new(Mutex::new(Stage { seen, out })))
    }

    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the image as it is now; lines wait meanwhile. Beside it, where mobile robots say they are: x, y in centimetres.
    pub fn look<T>(&self, look: impl FnOnce(&InputImage<'_>, &dyn Fn(MachineId) -> Option<(i16, i16)>) -> T) -> T {
        let stage = self.lock();
        let spot = |id: MachineId| stage.seen.spots.get(usize::from(id.0)).copied().flatten();
        look(&stage.seen.image.view(), &spot)
    }

    /// Changes the image and hands it over whole.
    pub(super) fn change(&self, change: impl FnOnce(&mut Seen)) {
        let mut stage = self.lock();
        let Stage { seen, out } = &mut *stage;
        change(seen);
        out.input_buffer_mut().copy_from(&seen.image);
        out.publish();
    }
}

/// Puts a reading into the image.
pub(super) fn into_image(seen: &mut Seen, role: Role, reading: &Reading, at: Millis) {
    let image = &mut seen.image;
    match (role, &reading.value) {
        (Role::Machine(id), Some(Value::Words(words))) => match decode_status(words) {
            Some(value) => {
                image.set_machine(id, Stamped { value, quality: reading.quality, at });
                if let Some(slot) = seen.spots.get_mut(usize::from(id.0)) {
                    let word = |n: usize| words.get(n).map(|w| w.cast_signed());
                    *slot = word(status::X_CM).zip(word(status::Y_CM)).filter(|spot| *spot != (0, 0));
                }
            }
            None => image.degrade_machine(id, Quality::Bad),
        },
        (Role::Position(pos), Some(value)) => match value.as_u32() {
            Some(raw) => image.set_position(pos, Stamped { value: LoadId::new(raw), quality: reading.quality, at }),
            None => image.degrade_position(pos, Quality::Bad),
        },
        (Role::Machine(id), None | Some(_)) => image.degrade_machine(id, Quality::Bad),
        (Role::Position(pos), None) => image.degrade_position(pos, Quality::Bad),
        (Role::Telemetry, _) => {}
    }
}
