//! What the fuzz targets of the gateway ask of it (`fuzz/`). Owns the way in; the laws lie beside what they are about.

pub use super::access::fuzzing::api_keys;
pub use super::batches::fuzzing::batch_lines;
pub use super::once::fuzzing::events;
pub use super::openai::fuzzing::{chat_bodies, completion_bodies};
pub use super::text::fuzzing::{chat_templates, stop_strings};

#[cfg(test)]
#[path = "../../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay::replay;

    #[test]
    fn a_chat_is_read_the_same_however_it_is_written_or_refused_without_its_text() {
        replay("chat_bodies", super::chat_bodies);
    }

    #[test]
    fn a_completion_is_read_the_same_however_it_is_written_or_refused_without_its_text() {
        replay("completion_bodies", super::completion_bodies);
    }

    #[test]
    fn a_line_of_a_batch_is_refused_or_handed_on_as_it_is() {
        replay("batch_lines", super::batch_lines);
    }

    #[test]
    fn a_template_ends_within_its_bounds_and_its_failures_quote_no_message() {
        replay("chat_templates", super::chat_templates);
    }

    #[test]
    fn a_stop_string_is_found_wherever_the_text_is_cut() {
        replay("stop_strings", super::stop_strings);
    }

    #[test]
    fn events_are_numbered_and_otherwise_left_alone() {
        replay("events", super::events);
    }

    #[test]
    fn a_key_has_one_form_and_is_never_shown() {
        replay("api_keys", super::api_keys);
    }
}
