//! What the list of models must hold to: the coordinator's wish is followed exactly, and states are told in plain words.

use Desire::{Held, Offered};
use supervisor::{At, Incarnation, WaitingFor};

use super::*;
use crate::config::OfferSource;
use crate::preparing::{CardFiles, Footprint, ModelFacts};
use crate::probes::SeedRates;
use crate::runtimes::Launch;

fn offer(model: &str, path: &str) -> Offer {
    Offer { model: model.to_owned(), source: OfferSource::Path(path.to_owned()) }
}

fn wish(models: &Models) -> Vec<u32> {
    models.wish().into_iter().map(|wanted| wanted.model.0).collect()
}

/// Wishes for models, each called by the name of its folder, and prepares what is to be prepared, in vain at first.
fn want(models: &mut Models, wishes: &[(&str, Desire)]) -> Vec<ModelKey> {
    let wishes: Vec<_> = wishes
        .iter()
        .map(|(name, desire)| Wish { offer: offer(name, &format!("/{name}")), desire: *desire })
        .collect();
    let to_prepare = models.want(&wishes);
    for key in &to_prepare {
        models.get_mut(*key).expect("known").unprepared = Some("no such folder".to_owned());
    }
    to_prepare
}

fn prepare(models: &mut Models, key: u32, bytes: u64) {
    let model = models.get_mut(ModelKey(key)).expect("known");
    let launch = Launch { guard_program: "/g".into(), program: "/p".into(), args: vec![], env: vec![] };
    model.unprepared = None;
    model.prepared = Some(Arc::new(PreparedModel {
        folder: "/m".to_owned(),
        facts: ModelFacts::default(),
        footprint: Footprint { bytes, ..Footprint::default() },
        card: Arc::new(CardFiles { digest: "d".to_owned(), files: vec![] }),
        launch,
        seed: SeedRates::default(),
    }));
}

fn told(models: &Models, key: u32) -> (ModelWord, String) {
    models.get(ModelKey(key)).expect("known").told()
}

#[test]
fn a_wish_is_complete_what_it_does_not_name_is_not_wanted() {
    let mut models = Models::default();
    assert_eq!(want(&mut models, &[("a", Held), ("b", Held)]), [ModelKey(1), ModelKey(2)]);
    assert_eq!(want(&mut models, &[("b", Held), ("c", Held)]), [ModelKey(3)]);
    assert_eq!(wish(&models), [2, 3]);
    models.forget_gone();
    assert!(models.get(ModelKey(1)).is_none());
}

#[test]
fn the_same_wish_again_changes_nothing() {
    let mut models = Models::default();
    let wishes = [("a", Held), ("b", Offered)];
    want(&mut models, &wishes);
    assert_eq!(want(&mut models, &wishes), []);
    assert_eq!(wish(&models), [1]);
}

#[test]
fn an_offered_model_is_prepared_but_never_wished_of_the_supervisor() {
    let mut models = Models::default();
    assert_eq!(want(&mut models, &[("a", Offered)]), [ModelKey(1)]);
    prepare(&mut models, 1, 77);
    assert_eq!(models.wish(), []);
    assert_eq!(told(&models, 1), (ModelWord::Offered, String::new()));
    models.forget_gone();
    assert_eq!(want(&mut models, &[("a", Held)]), [], "it is prepared already");
    assert_eq!(models.wish(), [Wanted { model: ModelKey(1), bytes: 77 }]);
}

#[test]
fn a_model_that_goes_back_to_being_offered_is_leaving_until_it_has_left() {
    let mut models = Models::default();
    want(&mut models, &[("a", Held)]);
    prepare(&mut models, 1, 77);
    want(&mut models, &[("a", Offered)]);
    assert_eq!(wish(&models), [0_u32; 0]);
    for (state, word) in [
        (ModelState::Draining, ModelWord::Stopping),
        (ModelState::Stopping, ModelWord::Stopping),
        (ModelState::Gone, ModelWord::Offered),
    ] {
        models.get_mut(ModelKey(1)).expect("known").state = Some(state);
        assert_eq!(told(&models, 1).0, word);
        models.forget_gone();
    }
}

#[test]
fn of_two_wishes_for_one_model_the_greater_counts() {
    let mut models = Models::default();
    assert_eq!(want(&mut models, &[("a", Held), ("a", Offered)]), [ModelKey(1)]);
    assert_eq!(wish(&models), [1]);
}

#[test]
fn an_offered_model_that_cannot_be_prepared_says_why_and_is_tried_anew_when_it_is_to_be_held() {
    let mut models = Models::default();
    want(&mut models, &[("a", Offered)]);
    assert_eq!(told(&models, 1), (ModelWord::Failed, "no such folder".to_owned()));
    assert_eq!(want(&mut models, &[("a", Offered)]), []);
    assert_eq!(want(&mut models, &[("a", Held)]), [ModelKey(1)]);
    assert_eq!(want(&mut models, &[("a", Held)]), [], "once");
    assert_eq!(want(&mut models, &[("a", Offered)]), [], "it was just tried");
}

#[test]
fn an_offered_model_tells_how_far_its_download_is() {
    let mut models = Models::default();
    models.want(&[Wish { offer: offer("a", "/a"), desire: Offered }]);
    let model = models.get_mut(ModelKey(1)).expect("known");
    (model.preparing_words, model.permille) = ("downloading".to_owned(), 300);
    assert_eq!((model.told(), model.progress()), ((ModelWord::Waiting, "downloading".to_owned()), 300));
    prepare(&mut models, 1, 1);
    assert_eq!(models.get(ModelKey(1)).map(Model::progress), Some(0));
}

#[test]
fn a_name_with_another_source_is_another_model_and_the_wanted_one_is_shown() {
    let mut models = Models::default();
    models.want(&[Wish { offer: offer("a", "/old"), desire: Held }]);
    models.get_mut(ModelKey(1)).expect("known").state = Some(ModelState::Stopping);
    assert_eq!(models.want(&[Wish { offer: offer("a", "/new"), desire: Held }]), [ModelKey(2)]);
    let shown: std::collections::BTreeMap<_, _> =
        models.in_order().map(|(key, model)| (model.offer.model.as_str(), key)).collect();
    assert_eq!(shown["a"], ModelKey(2));
}

#[test]
fn a_model_that_comes_back_while_it_leaves_keeps_its_key() {
    let mut models = Models::default();
    want(&mut models, &[("a", Held)]);
    prepare(&mut models, 1, 77);
    models.get_mut(ModelKey(1)).expect("known").state = Some(ModelState::Stopping);
    want(&mut models, &[]);
    models.forget_gone();
    assert_eq!(want(&mut models, &[("a", Held)]), []);
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
        (ModelState::Draining, ModelWord::Stopping, "its running answers may finish first"),
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
