//! What the fuzz targets of the agent ask of it (`fuzz/`). Owns the way in; the laws lie beside what they are about.

pub use crate::coordinators::fuzzing::settings;
pub use crate::runtimes::fuzzing::runtime_frames;
pub use crate::store::fuzzing::{model_configs, safetensors_files, safetensors_headers};

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay::replay;

    #[test]
    fn frames_of_a_runtime_are_the_same_however_they_are_cut() {
        replay("runtime_frames", super::runtime_frames);
    }

    #[test]
    fn a_header_is_refused_or_its_tensors_cover_the_data() {
        replay("safetensors_headers", super::safetensors_headers);
        replay("safetensors_files", super::safetensors_files);
    }

    #[test]
    fn what_a_config_says_stays_within_bounds() {
        replay("model_configs", super::model_configs);
    }

    #[test]
    fn settings_and_the_file_of_coordinators_stay_within_bounds() {
        replay("settings", super::settings);
    }
}
