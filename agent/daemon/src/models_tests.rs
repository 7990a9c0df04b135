//! What the list of models must hold to: the coordinator's wish is followed exactly, and states are told in plain words.

use supervisor::{At, Incarnation, WaitingFor};

use super::*;
use crate::config::OfferSource;

fn offer(model: &str, path: &str) -> Offer {
    Offer { model: model.to_owned(), source: OfferSource::Path(path.to_owned()) }
}

fn wish(models: &Models) -> Vec<u32> {
    models.wish().into_iter().map(|wanted| wanted.model.0).collect()
}

#[test]
fn a_wish_is_complete_what_it_does_not_name_is_not_wanted() {
    let mut models = Models::default();
    assert_eq!(models.want(vec![offer("a", "/a"), offer("b", "/b")]), [ModelKey(1), ModelKey(2)]);
    assert_eq!(models.want(vec![offer("b", "/b"), offer("c", "/c")]), [ModelKey(3)]);
    assert_eq!(wish(&models), [2, 3]);
    models.forget_gone();
    assert!(models.get(ModelKey(1)).is_none());
}

#[test]
fn the_same_wish_again_changes_nothing() {
    let mut models = Models::default();
    let offers = vec![offer("a", "/a"), offer("b", "/b")];
    models.want(offers.clone());
    assert_eq!(models.want(offers), []);
    assert_eq!(wish(&models), [1, 2]);
}

#[test]
fn a_name_with_another_source_is_another_model_and_the_wanted_one_is_shown() {
    let mut models = Models::default();
    models.want(vec![offer("a", "/old")]);
    models.get_mut(ModelKey(1)).expect("known").state = Some(ModelState::Stopping);
    assert_eq!(models.want(vec![offer("a", "/new")]), [ModelKey(2)]);
    let shown: std::collections::BTreeMap<_, _> =
        models.in_order().map(|(key, model)| (model.offer.model.as_str(), key)).collect();
    assert_eq!(shown["a"], ModelKey(2));
}

#[test]
fn a_model_that_comes_back_while_it_leaves_keeps_its_key() {
    let mut models = Models::default();
    models.want(vec![offer("a", "/a")]);
    models.get_mut(ModelKey(1)).expect("known").state = Some(ModelState::Stopping);
    models.want(Vec::new());
    models.forget_gone();
    assert_eq!(models.want(vec![offer("a", "/a")]), []);
    assert_eq!(wish(&models), [1]);
}

#[test]
fn every_state_is_told_as_one_word_and_a_reason() {
    let until = At(0);
    let reason = || "signal 9".to_owned();
    let cases = [
        (ModelState::Waiting { for_: WaitingFor::Footprint }, ModelWord::Waiting, "downloading"),
        (
            ModelState::Waiting { for_: WaitingFor::Backoff { until, reason: reason() } },
            ModelWord::Waiting,
            "it will be started again: signal 9",
        ),
        (
            ModelState::Waiting { for_: WaitingFor::Memory { needed: 5 << 20, free: 3 << 20 } },
            ModelWord::Waiting,
            "it needs 5 MiB, 3 MiB of this Mac's budget are free",
        ),
        (
            ModelState::Waiting { for_: WaitingFor::Processes { limit: 2 } },
            ModelWord::Waiting,
            "for one of 2 processes to end",
        ),
        (ModelState::Starting, ModelWord::Starting, ""),
        (ModelState::Loading, ModelWord::Loading, ""),
        (ModelState::Ready { incarnation: Incarnation(1), bytes: 1 }, ModelWord::Ready, ""),
        (ModelState::Stopping, ModelWord::Stopping, ""),
        (ModelState::Failed { reason: reason(), permanent: true }, ModelWord::Failed, "signal 9"),
        (ModelState::Gone, ModelWord::Stopping, ""),
    ];
    for (state, word, reason) in cases {
        let mut model = Model::new(offer("a", "/a"));
        model.preparing_words = "downloading".to_owned();
        model.state = Some(state);
        assert_eq!(model.told(), (word, reason.to_owned()));
    }
}

#[test]
fn progress_is_told_while_it_means_something() {
    let mut model = Model::new(offer("a", "/a"));
    model.permille = 400;
    for (state, permille) in [
        (ModelState::Waiting { for_: WaitingFor::Footprint }, 400),
        (ModelState::Loading, 400),
        (ModelState::Starting, 0),
        (ModelState::Ready { incarnation: Incarnation(1), bytes: 1 }, 1_000),
    ] {
        model.state = Some(state);
        assert_eq!(model.progress(), permille);
    }
}
