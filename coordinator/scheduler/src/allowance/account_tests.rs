//! An account by example, and its laws on random histories.

use alloc::vec::Vec;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000;

fn at(ms: u64) -> At {
    At(ms * 1_000)
}

fn claim(number: u64, prompt_tokens: u64, answer_tokens: u64) -> Claim {
    Claim { number: RequestId(number), prompt_tokens, answer_tokens }
}

fn requests(limit: u64) -> Bounds {
    Bounds { requests: Some(limit), ..Bounds::default() }
}

fn tokens(limit: u64) -> Bounds {
    Bounds { tokens: Some(limit), ..Bounds::default() }
}

/// How many of `count` claims at one moment are granted.
fn granted(account: &mut Account, now: At, bounds: &Bounds, count: u64, first: u64) -> u64 {
    (0..count).filter(|nth| account.claim(now, bounds, claim(first + nth, 0, 0)).is_ok()).count() as u64
}

#[test]
fn a_minutes_worth_may_come_at_once_and_the_rest_as_it_drains() {
    let mut account = Account::default();
    assert_eq!(granted(&mut account, at(0), &requests(5), 9, 0), 5);
    let refused = account.claim(at(0), &requests(5), claim(9, 0, 0));
    assert_eq!(refused, Err(Excess::Requests { after: Span::from_s(12) }));
    let just_before = account.claim(At(12 * SECOND - 1), &requests(5), claim(9, 0, 0));
    assert_eq!(just_before, Err(Excess::Requests { after: Span(1) }));
    assert_eq!(account.claim(At(12 * SECOND), &requests(5), claim(9, 0, 0)), Ok(()));
    assert_eq!(granted(&mut account, at(600_000), &requests(5), 9, 10), 5);
}

#[test]
fn a_bound_that_does_not_divide_a_minute_is_kept_to_the_last() {
    for limit in [1, 3, 7, 11, 59, 61, 977] {
        assert_eq!(granted(&mut Account::default(), at(0), &requests(limit), limit + 3, 0), limit);
    }
}

#[test]
fn what_is_refused_is_not_charged() {
    let mut account = Account::default();
    let bounds = Bounds { requests: Some(2), tokens: Some(100), ..Bounds::default() };
    assert_eq!(account.claim(at(0), &bounds, claim(1, 90, 0)), Ok(()));
    for _ in 0..5 {
        let after = Span::from_s(6);
        assert_eq!(account.claim(at(0), &bounds, claim(2, 20, 0)), Err(Excess::Tokens { after }));
    }
    assert_eq!(account.claim(at(0), &bounds, claim(2, 10, 0)), Ok(()));
}

#[test]
fn a_claim_that_is_said_twice_is_charged_once() {
    let mut account = Account::default();
    for _ in 0..9 {
        assert_eq!(account.claim(at(0), &requests(2), claim(1, 0, 0)), Ok(()));
    }
    assert_eq!(account.claim(at(0), &requests(2), claim(2, 0, 0)), Ok(()));
    assert!(account.claim(at(0), &requests(2), claim(3, 0, 0)).is_err());
}

#[test]
fn so_many_at_one_time_and_no_more() {
    let mut account = Account::default();
    let bounds = Bounds { concurrent: Some(2), ..Bounds::default() };
    assert_eq!(granted(&mut account, at(0), &bounds, 3, 0), 2);
    assert_eq!(account.claim(at(0), &bounds, claim(9, 0, 0)), Err(Excess::Concurrent));
    assert!(account.settle(at(1), &bounds, RequestId(0), 0));
    assert!(!account.settle(at(1), &bounds, RequestId(0), 0), "once");
    assert_eq!(account.claim(at(1), &bounds, claim(9, 0, 0)), Ok(()));
    assert!(account.release(RequestId(1)) && !account.release(RequestId(1)));
    assert_eq!(account.claim(at(1), &bounds, claim(10, 0, 0)), Ok(()));
}

#[test]
fn what_was_claimed_too_much_is_given_back_once() {
    let mut account = Account::default();
    assert_eq!(account.claim(at(0), &tokens(100), claim(1, 10, 80)), Ok(()));
    let after = Span::from_s(24);
    assert_eq!(account.claim(at(0), &tokens(100), claim(2, 50, 0)), Err(Excess::Tokens { after }));
    for _ in 0..3 {
        account.settle(at(0), &tokens(100), RequestId(1), 30);
    }
    let standing = account.standings(at(0), &tokens(100)).tokens.expect("a bound");
    assert_eq!((standing.remaining, standing.reset), (70, Span::from_s(18)));
}

#[test]
fn what_an_answer_took_beyond_its_claim_is_a_debt() {
    let mut account = Account::default();
    assert_eq!(account.claim(at(0), &tokens(100), claim(1, 10, 10)), Ok(()));
    account.settle(at(0), &tokens(100), RequestId(1), 220);
    let standing = account.standings(at(0), &tokens(100)).tokens.expect("a bound");
    assert_eq!((standing.remaining, standing.reset), (0, Span::from_s(132)));
    let after = Span::from_s(78);
    assert_eq!(account.claim(at(0), &tokens(100), claim(2, 10, 0)), Err(Excess::Tokens { after }));
}

#[test]
fn an_answer_that_may_exceed_a_minute_claims_a_whole_one_and_a_prompt_that_does_never_fits() {
    let mut account = Account::default();
    assert_eq!(account.claim(at(0), &tokens(100), claim(1, 101, 0)), Err(Excess::Never));
    assert_eq!(account.claim(at(0), &tokens(100), claim(1, 20, 32_000)), Ok(()));
    assert_eq!(account.claimed(RequestId(1)), Some(100));
    assert!(account.claim(at(0), &tokens(100), claim(2, 1, 0)).is_err());
}

#[test]
fn a_month_ends_where_it_is_used_up_and_counts_what_is_not_written_down_yet() {
    let mut account = Account::default();
    let month = |used| Bounds { month: Some(Month { most: 100, used }), ..Bounds::default() };
    assert_eq!(account.claim(at(0), &month(90), claim(1, 11, 0)), Err(Excess::Month));
    account.written(90);
    assert_eq!(account.claim(at(0), &month(90), claim(1, 10, 500)), Ok(()));
    account.settle(at(0), &month(90), RequestId(1), 10);
    assert_eq!(account.claim(at(1), &month(90), claim(2, 1, 0)), Err(Excess::Month));
    // Written down, it does not count twice.
    account.written(95);
    assert_eq!(account.claim(at(2), &month(95), claim(2, 1, 0)), Err(Excess::Month));
    assert_eq!(account.claim(at(2), &month(94), claim(2, 1, 0)), Ok(()), "five were");
    // What nobody wrote down was lost with its gateway.
    account.settle(at(3), &month(95), RequestId(2), 5);
    assert_eq!(account.claim(at(4), &month(95), claim(3, 1, 0)), Err(Excess::Month));
    assert_eq!(account.claim(at(20_000), &month(95), claim(3, 5, 0)), Ok(()));
    // Another month.
    account.written(3);
    assert_eq!(account.claim(at(20_000), &month(3), claim(4, 97, 0)), Ok(()));
}

#[test]
fn a_bound_that_changes_holds_at_once() {
    let mut account = Account::default();
    assert_eq!(granted(&mut account, at(0), &requests(10), 10, 0), 10);
    assert_eq!(account.claim(at(0), &requests(12), claim(10, 0, 0)), Ok(()));
    let after = Span::from_s(60 * 10 / 2);
    assert_eq!(account.claim(at(0), &requests(2), claim(11, 0, 0)), Err(Excess::Requests { after }));
    assert_eq!(account.claim(at(0), &Bounds::default(), claim(11, 0, 0)), Ok(()));
}

#[test]
fn the_next_leader_begins_where_the_last_one_ended() {
    let bounds = Bounds { requests: Some(60), tokens: Some(6_000), ..Bounds::default() };
    let mut before = Account::default();
    for number in 0..40 {
        assert_eq!(before.claim(at(0), &bounds, claim(number, 50, 50)), Ok(()));
    }
    let Standings { requests: Some(requests), tokens: Some(tokens) } = before.standings(at(1_000), &bounds)
    else {
        panic!("both have a bound")
    };
    let mut after = Account::default();
    // Three gateways know it, one of them from a little earlier; one says it twice.
    for late in [0, 500, 0, 0] {
        let less = |span: Span| span.less(Span::from_ms(late));
        after.recall(at(1_000), &bounds, less(requests.reset), less(tokens.reset));
    }
    assert_eq!(after.standings(at(1_000), &bounds), before.standings(at(1_000), &bounds));
    after.adopt(RequestId(3), 100, at(0));
    after.settle(at(1_000), &bounds, RequestId(3), 60);
    before.settle(at(1_000), &bounds, RequestId(3), 60);
    assert_eq!(after.standings(at(1_000), &bounds), before.standings(at(1_000), &bounds));
}

#[test]
fn an_account_is_idle_when_nothing_would_be_lost_with_it() {
    let mut account = Account::default();
    let bounds = requests(60);
    assert!(account.is_idle(at(0), &bounds));
    assert_eq!(account.claim(at(0), &bounds, claim(1, 0, 0)), Ok(()));
    assert!(!account.is_idle(at(5_000), &bounds), "open");
    account.settle(at(5_000), &bounds, RequestId(1), 7);
    assert!(!account.is_idle(at(6_000), &bounds), "not written down yet");
    assert!(account.is_idle(at(30_000), &bounds));
}

/// A step of a history: time passes, something is claimed, something ends.
#[derive(Clone, Debug)]
struct Step {
    pause_ms: u64,
    prompt: u64,
    answer: u64,
    /// Which of the open ones ends, if one does, and how much of its answer came.
    ends: Option<(prop::sample::Index, u64)>,
    leaves: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ends = proptest::option::of((any::<prop::sample::Index>(), 0_u64..100));
    let step = (0_u64..30_000, 0_u64..40, 0_u64..80, ends, proptest::bool::weighted(0.05));
    let step = step.prop_map(|(pause_ms, prompt, answer, ends, leaves)| Step {
        pause_ms,
        prompt,
        answer,
        ends,
        leaves,
    });
    vec(step, 1..120)
}

/// What was granted: when, how many tokens it took or may take still, and whether it has ended.
struct Grant {
    number: RequestId,
    at: At,
    claimed: u64,
    prompt: u64,
    used: Option<u64>,
}

/// Plays a history; leaders change where `leaves` says so, the next one being told of every open claim and of the levels.
fn play(bounds: &Bounds, steps: &[Step], leaders_change: bool) -> Vec<Grant> {
    let (mut account, mut now, mut grants) = (Account::default(), At(0), Vec::<Grant>::new());
    for (number, step) in (0..).zip(steps) {
        now = now + Span::from_ms(step.pause_ms);
        if step.leaves && leaders_change {
            let Standings { requests, tokens } = account.standings(now, bounds);
            let reset = |standing: Option<Standing>| standing.map_or(Span::ZERO, |standing| standing.reset);
            account = Account::default();
            account.recall(now, bounds, reset(requests), reset(tokens));
            for grant in grants.iter().filter(|grant| grant.used.is_none()) {
                account.adopt(grant.number, grant.claimed, grant.at);
            }
        }
        let open: Vec<_> = (0..grants.len()).filter(|nth| grants[*nth].used.is_none()).collect();
        if let Some((which, share)) = step.ends.filter(|_| !open.is_empty()) {
            let grant = &mut grants[*which.get(&open)];
            let used = grant.prompt + (grant.claimed - grant.prompt) * share / 100;
            assert!(account.settle(now, bounds, grant.number, used));
            grant.used = Some(used);
        }
        let claim = claim(number, step.prompt, step.answer);
        if account.claim(now, bounds, claim).is_ok() {
            let claimed = account.claimed(claim.number).expect("open");
            let prompt = step.prompt;
            grants.push(Grant { number: claim.number, at: now, claimed, prompt, used: None });
        }
    }
    grants
}

/// The most that any minute saw of what `weigh` counts, each at the moment at which it was granted.
fn fullest_minute(grants: &[Grant], weigh: impl Fn(&Grant) -> u64) -> u64 {
    let minute = Span::from_s(60);
    let from = |first: &Grant| {
        let within = grants.iter().filter(|grant| grant.at >= first.at && grant.at < first.at + minute);
        within.map(&weigh).sum::<u64>()
    };
    grants.iter().map(from).max().unwrap_or_default()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_minute_sees_more_than_the_bound_and_one_bucket(
        steps in steps(), requests in 1_u64..9, tokens in 40_u64..300, leaders_change in any::<bool>(),
    ) {
        let bounds = Bounds { requests: Some(requests), tokens: Some(tokens), ..Bounds::default() };
        let grants = play(&bounds, &steps, leaders_change);
        prop_assert!(fullest_minute(&grants, |_| 1) <= 2 * requests);
        let took = |grant: &Grant| grant.used.unwrap_or(grant.claimed);
        prop_assert!(fullest_minute(&grants, took) <= 2 * tokens);
    }

    #[test]
    fn over_a_long_time_the_bound_is_the_rate(steps in steps(), tokens in 40_u64..300) {
        let grants = play(&super::tests::tokens(tokens), &steps, true);
        let (Some(first), Some(last)) = (grants.first(), grants.last()) else { return Ok(()) };
        let took: u64 = grants.iter().map(|grant| grant.used.unwrap_or(grant.claimed)).sum();
        let ms = last.at.since(first.at).0 / 1_000;
        prop_assert!(took * 60_000 <= tokens * (ms + 60_000) + 60_000, "{took} in {ms} ms");
    }

    #[test]
    fn at_one_time_there_are_never_more_than_the_bound(steps in steps(), most in 1_u64..5, change in any::<bool>()) {
        let bounds = Bounds { concurrent: Some(most), ..Bounds::default() };
        let grants = play(&bounds, &steps, change);
        let open = grants.iter().filter(|grant| grant.used.is_none()).count() as u64;
        prop_assert!(open <= most);
    }

    #[test]
    fn whoever_waits_as_long_as_he_is_told_is_granted_and_not_a_microsecond_earlier(
        steps in steps(), limit in 1_u64..500, count in 1_u64..500,
    ) {
        let bounds = tokens(limit);
        let mut account = Account::default();
        let mut now = At(0);
        for (number, step) in (0..).zip(&steps) {
            now = now + Span::from_ms(step.pause_ms);
            let _ = account.claim(now, &bounds, claim(number, step.prompt, step.answer));
        }
        let asked = claim(9_999, count.min(limit), 0);
        if let Err(refused) = account.claim(now, &bounds, asked) {
            let Excess::Tokens { after } = refused else { panic!("{refused:?}") };
            let just_before = At((now + after).0 - 1);
            prop_assert!(account.clone().claim(just_before, &bounds, asked).is_err());
            prop_assert_eq!(account.claim(now + after, &bounds, asked), Ok(()));
        }
    }

    #[test]
    fn whatever_comes_it_never_overflows(
        limit in any::<u64>(), prompt in any::<u64>(), answer in any::<u64>(), used in any::<u64>(), time in any::<u64>(),
    ) {
        let bounds = Bounds {
            requests: Some(limit),
            tokens: Some(limit),
            concurrent: Some(limit),
            month: Some(Month { most: limit, used }),
        };
        let mut account = Account::default();
        for number in 0..3 {
            let _ = account.claim(At(time), &bounds, claim(number, prompt, answer));
            account.settle(At(time), &bounds, RequestId(number), used);
            account.recall(At(time), &bounds, Span(used), Span(answer));
            account.adopt(RequestId(number), used, At(prompt));
            account.settle(At(u64::MAX), &bounds, RequestId(number), prompt);
            let _ = account.standings(At(prompt), &bounds);
        }
    }
}
