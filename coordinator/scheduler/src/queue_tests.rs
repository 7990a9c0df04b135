//! The queue against a plain list that is sorted anew for every question.

use proptest::prelude::*;

use super::*;

const MODEL: ModelId = ModelId(1);
const ANN: TenantId = TenantId(1);
const BOB: TenantId = TenantId(2);
const ALL: CountBounds = CountBounds { heads: usize::MAX, enough: usize::MAX };

fn fresh(tenant: TenantId, rank: u64, request: u64) -> Place {
    Place {
        marked: None,
        arrived: At(rank),
        class: Class::Interactive,
        tenant,
        rank: At(rank),
        request: RequestId(request),
        work: Span::from_s(1),
    }
}

fn marked(arrived: u64, request: u64) -> Place {
    Place { marked: Some(At(arrived)), ..fresh(ANN, arrived, request) }
}

fn queue(places: &[Place]) -> Queue {
    let mut queue = Queue::default();
    places.iter().for_each(|place| queue.insert(MODEL, place, Turns(0)));
    queue
}

fn window(queue: &Queue, fresh_max: usize) -> Vec<u64> {
    queue.window(MODEL, fresh_max).iter().map(|request| request.0).collect()
}

#[test]
fn a_marked_request_stands_before_every_fresh_one() {
    let queue = queue(&[fresh(ANN, 1, 1), marked(9, 3), marked(5, 2)]);
    assert_eq!(window(&queue, 8), [2, 3, 1]);
    assert_eq!(queue.ahead(MODEL, &fresh(ANN, 1, 1)), 2);
    assert_eq!(queue.ahead(MODEL, &marked(9, 3)), 1);
}

#[test]
fn whoever_has_had_fewer_turns_goes_first() {
    let mut queue = queue(&[fresh(ANN, 1, 1), fresh(ANN, 2, 2), fresh(BOB, 3, 3)]);
    assert_eq!(window(&queue, 8), [1, 3, 2], "the first of each, then the rest");
    queue.reorder(ANN, Turns(1));
    assert_eq!(window(&queue, 8), [3, 1, 2]);
    assert_eq!(window(&queue, 1), [3]);
}

#[test]
fn batch_work_stands_behind_interactive_work_whatever_its_turn() {
    let batch = Place { class: Class::Batch, ..fresh(BOB, 1, 1) };
    let mut queue = queue(&[batch, fresh(ANN, 2, 2)]);
    queue.reorder(ANN, Turns(50));
    assert_eq!(window(&queue, 8), [2, 1]);
    assert_eq!((queue.ahead(MODEL, &batch), queue.ahead(MODEL, &fresh(ANN, 2, 2))), (1, 0));
    assert_eq!(queue.of_class(MODEL, Class::Batch), [RequestId(1)]);
}

#[test]
fn tenants_of_equal_turns_take_turns_in_what_is_said_of_the_wait() {
    let places: Vec<Place> = (0..6).map(|n| fresh(if n < 3 { ANN } else { BOB }, n, n)).collect();
    let queue = queue(&places);
    let ahead: Vec<usize> = places.iter().map(|place| queue.ahead(MODEL, place)).collect();
    assert_eq!(ahead, [0, 2, 4, 1, 3, 5]);
}

#[test]
fn a_line_is_as_urgent_as_its_first() {
    let mut queue = queue(&[fresh(ANN, 5, 1)]);
    let calm = queue.urgency(MODEL).expect("somebody waits");
    queue.insert(ModelId(2), &fresh(BOB, 4, 2), Turns(0));
    assert!(queue.urgency(ModelId(2)).expect("somebody waits") < calm);
    queue.insert(MODEL, &marked(9, 3), Turns(0));
    assert!(queue.urgency(MODEL).expect("somebody waits") < calm);
    assert_eq!(queue.urgency(ModelId(3)), None);
}

#[test]
fn the_work_that_waits_is_counted_by_tenant_and_by_model() {
    let mut queue = queue(&[fresh(ANN, 1, 1), fresh(BOB, 2, 2), marked(3, 3)]);
    assert_eq!(
        (queue.work(), queue.work_of(ANN), queue.work_for(MODEL)),
        (Span::from_s(3), Span::from_s(2), Span::from_s(3))
    );
    assert_eq!(queue.tenants(), 2);
    queue.remove(MODEL, &fresh(ANN, 1, 1));
    queue.remove(MODEL, &fresh(ANN, 1, 1));
    queue.remove(MODEL, &marked(3, 3));
    assert_eq!((queue.work(), queue.work_of(ANN), queue.tenants()), (Span::from_s(1), Span::ZERO, 1));
}

/// The places of one model in the order of the line.
fn sorted(list: &[(ModelId, Place)], model: ModelId, turns: &dyn Fn(TenantId) -> u64) -> Vec<Place> {
    let mut places: Vec<Place> =
        list.iter().filter(|(of, _)| *of == model).map(|(_, place)| *place).collect();
    places.sort_by_key(|place| match place.marked {
        Some(arrived) => (0, Class::Interactive, 0, arrived, place.request),
        None => (1, place.class, turns(place.tenant), place.rank, place.request),
    });
    places
}

type Step = (u8, u64, u64, u32, u32, bool, bool);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step =
        (0_u8..3, 0_u64..12, 0_u64..5, 0_u32..4, 0_u32..2, any::<bool>(), proptest::bool::weighted(0.2));
    proptest::collection::vec(step, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_queue_is_a_sorted_list_per_model(steps in steps()) {
        let mut queue = Queue::default();
        let mut list: Vec<(ModelId, Place)> = Vec::new();
        let mut turns = [0_u64; 4];
        for (kind, request, rank, tenant, model, batch, failed) in steps {
            let listed = list.iter().position(|(_, place)| place.request == RequestId(request));
            match (kind, listed) {
                (0, None) => {
                    let class = if batch { Class::Batch } else { Class::Interactive };
                    let marked = failed.then_some(At(rank));
                    let place = Place { marked, class, ..fresh(TenantId(tenant), rank, request) };
                    queue.insert(ModelId(model), &place, Turns(turns[tenant as usize]));
                    list.push((ModelId(model), place));
                }
                (1, Some(index)) => {
                    let (model, place) = list.remove(index);
                    queue.remove(model, &place);
                }
                _ => {
                    turns[tenant as usize] += rank;
                    queue.reorder(TenantId(tenant), Turns(turns[tenant as usize]));
                }
            }
            prop_assert_eq!(queue.waiting(), list.len());
            prop_assert_eq!(queue.work(), Span::from_s(list.len() as u64));
            for model in [ModelId(0), ModelId(1)] {
                let line = sorted(&list, model, &|tenant| turns[tenant.0 as usize]);
                prop_assert_eq!(queue.length(model), line.len());
                prop_assert_eq!(queue.oldest(model), line.iter().map(|place| place.arrived).min());
                prop_assert_eq!(queue.window(model, 1).len(), line.iter().filter(|place| place.marked.is_some()).count() + usize::from(line.iter().any(|place| place.marked.is_none())));
                prop_assert_eq!(queue.window(model, 1).first().copied(), line.first().map(|place| place.request));
                let mut all = queue.window(model, usize::MAX);
                all.sort();
                let mut everybody: Vec<_> = line.iter().map(|place| place.request).collect();
                everybody.sort();
                prop_assert_eq!(&all, &everybody);
                let mut said: Vec<_> = queue.line(model).collect();
                said.sort();
                prop_assert_eq!(&said, &everybody);
                for (class, most) in [(Class::Interactive, 3), (Class::Batch, 3)] {
                    let claims = |place: &&Place| {
                        place.marked.is_some()
                            || place.class < class
                            || place.class == class && turns[place.tenant.0 as usize] <= most
                    };
                    prop_assert_eq!(queue.up_to(model, class, Turns(most), ALL), line.iter().filter(claims).count());
                    let bounded = queue.up_to(model, class, Turns(most), CountBounds { heads: 0, ..ALL });
                    let claiming = line.iter().filter(claims).count();
                    prop_assert!(bounded >= claiming);
                    for enough in 0..=line.len() {
                        let bounds = CountBounds { enough, ..ALL };
                        prop_assert_eq!(queue.up_to(model, class, Turns(most), bounds) >= enough, claiming >= enough);
                    }
                }
                for (before, place) in line.iter().enumerate() {
                    prop_assert!(queue.contains(model, place));
                    let ahead = queue.ahead(model, place);
                    prop_assert!(ahead < line.len());
                    let first_of_tenant = line.iter().find(|other| other.marked.is_none() && (other.class, other.tenant) == (place.class, place.tenant));
                    let heads_only = first_of_tenant == Some(place) && line[..before].iter().all(|other| {
                        other.marked.is_some() || other.class != place.class || line.iter().find(|head| head.marked.is_none() && (head.class, head.tenant) == (other.class, other.tenant)) == Some(other)
                    });
                    if place.marked.is_some() || heads_only {
                        prop_assert_eq!(ahead, before);
                    }
                }
            }
        }
    }
}
