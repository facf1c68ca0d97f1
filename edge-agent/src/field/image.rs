//! From readings to the input image of the control loop.

use crate::config::Role;
use control_core::InputImage;
use control_core::image::Quality;
use control_core::image::Stamped;
use control_core::units::LoadId;
use device_drivers::block::decode_status;
use device_drivers::value::{Reading, Value};
use std::sync::{Arc, Mutex, PoisonError};

/// The input image while it is being put together, shared by all lines. The lock is held for a copy.
#[derive(Clone)]
pub struct ImageStage(Arc<Mutex<Stage>>);

struct Stage {
    image: InputImage,
    out: triple_buffer::Input<InputImage>,
}

impl ImageStage {
    /// A stage that hands over through `out`.
    pub fn new(out: triple_buffer::Input<InputImage>) -> ImageStage {
        ImageStage(Arc::new(Mutex::new(Stage { image: InputImage::default(), out })))
    }

    /// A copy of the image as it is now.
    pub fn look(&self) -> InputImage {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).image.clone()
    }

    /// Changes the image and hands it over whole.
    pub(super) fn change(&self, change: impl FnOnce(&mut InputImage)) {
        let mut stage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Stage { image, out } = &mut *stage;
        change(image);
        out.input_buffer_mut().clone_from(image);
        out.publish();
    }
}

/// Puts a reading into the image.
pub(super) fn into_image(image: &mut InputImage, role: Role, reading: &Reading, at: control_core::units::Millis) {
    match (role, &reading.value) {
        (Role::Machine(id), Some(Value::Words(words))) => match decode_status(words) {
            Some(value) => image.set_machine(id, Stamped { value, quality: reading.quality, at }),
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
