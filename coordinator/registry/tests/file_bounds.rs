//! What happens when there are as many files and batches as may be, or as large ones.

#[cfg(test)]
mod script;

#[cfg(test)]
mod tests {
    use registry::{BatchField, BatchId, Bounded, Field, FileId, Refusal, Registry, Reply, limits};

    use super::script::command;

    fn founded() -> Registry {
        let mut registry = Registry::default();
        done(&mut registry, "found room at=1");
        done(&mut registry, "raise 2 at=1");
        registry
    }

    fn apply(registry: &mut Registry, line: &str) -> Reply {
        registry.apply(&command(line))
    }

    fn done(registry: &mut Registry, line: &str) {
        assert_eq!(apply(registry, line), Reply::Done, "{line}");
    }

    fn full(what: Bounded, limit: usize) -> Reply {
        Reply::Refused(Refusal::TooMany { what, limit })
    }

    fn file(id: &str, tenant: usize, bytes: u64, until: u64) -> String {
        format!("file {id} of={tenant} name=in pieces=a:{bytes}@1 at=10 until={until}")
    }

    #[test]
    fn a_tenant_has_so_many_files_and_what_its_batches_will_make_counts() {
        let mut registry = founded();
        for number in 0..limits::FILES_PER_TENANT_MAX - 1 {
            done(&mut registry, &file(&format!("f{number}"), 7, 1, 100));
        }
        let most = full(Bounded::FilesOfTenant, limits::FILES_PER_TENANT_MAX);
        let begin = "batch b begin of=7 reads=f0 as=chat run=1.a.1 at=20";
        assert_eq!(apply(&mut registry, begin), most, "one place is left, and it may need two");
        done(&mut registry, "drop-file f1");
        done(&mut registry, begin);
        assert_eq!(apply(&mut registry, &file("more", 7, 1, 100)), most);
        done(&mut registry, &file("more", 8, 1, 100));
        // An end without answers gives the places back.
        done(&mut registry, "batch b end expired run=1.a.1 output=o errors=e at=30");
        done(&mut registry, &file("another", 7, 1, 100));
    }

    #[test]
    fn all_tenants_together_have_so_many_files_and_what_is_over_counts_no_more() {
        let mut registry = founded();
        let each = limits::FILES_PER_TENANT_MAX;
        for number in 0..limits::FILES_MAX {
            done(&mut registry, &file(&format!("f{number}"), number / each, 1, 100));
        }
        assert_eq!(apply(&mut registry, &file("more", 99, 1, 100)), full(Bounded::Files, limits::FILES_MAX));
        done(&mut registry, "file more of=99 name=in pieces=a:1@1 at=100 until=200");
    }

    #[test]
    fn files_have_so_many_bytes_together() {
        let mut registry = founded();
        let most = limits::FILE_BYTES_PER_TENANT_MAX;
        let mib = |bytes: u64| usize::try_from(bytes >> 20).unwrap();
        done(&mut registry, &file("a", 1, most - 5, 100));
        let of_tenant = full(Bounded::FileMibOfTenant, mib(most));
        assert_eq!(apply(&mut registry, &file("b", 1, 6, 100)), of_tenant);
        done(&mut registry, &file("b", 1, 5, 100));
        for tenant in 2..=4 {
            done(&mut registry, &file(&format!("t{tenant}"), tenant, most, 100));
        }
        let all = full(Bounded::FileMib, mib(limits::FILE_BYTES_MAX));
        assert_eq!(apply(&mut registry, &file("t5", 5, 1, 100)), all);
    }

    #[test]
    fn what_a_batch_answers_counts_as_bytes_of_its_tenant() {
        let mut registry = founded();
        let most = limits::FILE_BYTES_PER_TENANT_MAX;
        done(&mut registry, &file("a", 1, most - 10, 100));
        done(&mut registry, "batch b begin of=1 reads=a as=chat run=1.a.1 at=20");
        done(&mut registry, "batch b open run=1.a.1 lines=3 at=21");
        done(&mut registry, "batch b keep run=1.a.1 after=0 completed=1 output=x:9@1 at=22");
        let step = |bytes| format!("batch b keep run=1.a.1 after=1 completed=1 output=y:{bytes}@1 at=23");
        let of_tenant = full(Bounded::FileMibOfTenant, usize::try_from(most >> 20).unwrap());
        assert_eq!(apply(&mut registry, &step(2)), of_tenant);
        done(&mut registry, &step(1));
    }

    #[test]
    fn of_a_tenants_batches_the_one_that_ended_first_gives_way_and_its_files_stay() {
        let mut registry = founded();
        done(&mut registry, &file("in", 1, 1, 100));
        let begin = |number: usize| format!("batch b{number} begin of=1 reads=in as=chat run=1.a.1 at=20");
        for number in 0..limits::BATCHES_PER_TENANT_MAX {
            done(&mut registry, &begin(number));
        }
        let most = full(Bounded::BatchesOfTenant, limits::BATCHES_PER_TENANT_MAX);
        assert_eq!(apply(&mut registry, &begin(99)), most);
        for (number, at) in [(3, 40), (5, 30)] {
            done(&mut registry, &format!("batch b{number} open run=1.a.1 lines=1 at={at}"));
            done(
                &mut registry,
                &format!("batch b{number} keep run=1.a.1 after=0 completed=1 output=x:1@1 at={at}"),
            );
            done(
                &mut registry,
                &format!("batch b{number} end completed run=1.a.1 output=o{number} errors=e{number} at={at}"),
            );
        }
        done(&mut registry, &begin(99));
        let there = |registry: &Registry, id: &str| registry.batch(&BatchId(id.to_owned())).is_some();
        assert!(!there(&registry, "b5") && there(&registry, "b3") && there(&registry, "b99"));
        assert!(registry.file(&FileId("o5".to_owned())).is_some());
    }

    #[test]
    fn a_batch_has_so_many_pieces_and_requests() {
        let mut registry = founded();
        done(&mut registry, &file("in", 1, 1, 100));
        done(&mut registry, "batch b begin of=1 reads=in as=chat run=1.a.1 at=20");
        let open = |lines: u64| format!("batch b open run=1.a.1 lines={lines} at=21");
        let malformed = Reply::Refused(Refusal::Malformed { what: Field::Batch(BatchField::Lines) });
        assert_eq!(apply(&mut registry, &open(limits::BATCH_LINES_MAX + 1)), malformed);
        done(&mut registry, &open(limits::BATCH_LINES_MAX));
        let step = |after: usize| format!("batch b keep run=1.a.1 after={after} failed=1 errors=x:1@1 at=22");
        for after in 0..limits::BATCH_PIECES_MAX {
            done(&mut registry, &step(after));
        }
        assert!(matches!(apply(&mut registry, &step(limits::BATCH_PIECES_MAX)), Reply::Refused(_)));
    }

    #[test]
    fn texts_and_lists_at_their_bounds_are_taken_and_beyond_refused() {
        let mut registry = founded();
        let name = "x".repeat(limits::FILE_NAME_BYTES_MAX);
        let pieces = vec!["a:1@1"; limits::UPLOAD_PIECES_MAX].join(",");
        done(&mut registry, &format!("file in of=1 name={name} pieces={pieces} at=1 until=100"));
        let key = "k".repeat(limits::METADATA_KEY_BYTES_MAX);
        let value = "v".repeat(limits::METADATA_VALUE_BYTES_MAX);
        let pairs: Vec<_> = (0..=limits::METADATA_PAIRS_MAX).map(|number| format!("k{number}:v")).collect();
        for (line, what) in [
            (format!("file f of=1 name={name}x pieces=a:1@1 at=1 until=9"), BatchField::FileName),
            (format!("file f of=1 name=n pieces={pieces},a:1@1 at=1 until=9"), BatchField::Pieces),
            (
                format!("batch b begin of=1 reads=in as=chat says={key}k:v run=1.a.1 at=2"),
                BatchField::Metadata,
            ),
            (
                format!("batch b begin of=1 reads=in as=chat says=k:{value}v run=1.a.1 at=2"),
                BatchField::Metadata,
            ),
            (
                format!("batch b begin of=1 reads=in as=chat says={} run=1.a.1 at=2", pairs.join(",")),
                BatchField::Metadata,
            ),
        ] {
            let malformed = Refusal::Malformed { what: Field::Batch(what) };
            assert_eq!(apply(&mut registry, &line), Reply::Refused(malformed), "{line}");
        }
        done(
            &mut registry,
            &format!("batch b begin of=1 reads=in as=chat says={key}:{value} run=1.a.1 at=2"),
        );
        let words = "x".repeat(limits::PROBLEM_BYTES_MAX);
        let fail = "batch b end failed run=1.a.1 output=o errors=e code=c at=3 because";
        let malformed = Refusal::Malformed { what: Field::Batch(BatchField::Problems) };
        assert_eq!(apply(&mut registry, &format!("{fail} {words}x")), Reply::Refused(malformed));
        done(&mut registry, &format!("{fail} {words}"));
    }
}
