//! Crashes of the process and of the machine at every operation, and what the log holds afterwards.

use super::generator::Generator;
use super::log_model::{Model, open};
use super::sim_disk::{Fault, SimDisk};

/// Runs a script of `steps` operations until the disk dies at operation `dead_from`. Returns the model and the disk.
fn run(seed: u64, steps: u64, dead_from: Option<u64>) -> (Model, SimDisk) {
    let disk = SimDisk::default();
    if let Some(at) = dead_from {
        disk.fail(Fault::DeadFrom(at));
    }
    let mut model = Model::new();
    let mut generator = Generator::new(seed);
    let Ok((mut log, _)) = open(&disk) else { return (model, disk) };
    for _ in 0..steps {
        if model.step(&mut log, &mut generator).is_err() {
            break;
        }
    }
    (model, disk)
}

#[test]
fn whichever_operation_the_process_dies_in_every_acknowledged_record_is_there() {
    for seed in 0..3 {
        let operations = run(seed, 60, None).1.operations();
        for at in 1..=operations {
            let (mut model, disk) = run(seed, 60, Some(at));
            let (_, contents) = open(&disk.after_kill()).unwrap();
            model.check(&contents, &format!("seed {seed}, killed in operation {at}"));
        }
    }
}

#[test]
fn whichever_operation_power_is_lost_in_every_acknowledged_record_is_there() {
    for seed in 10..13 {
        let operations = run(seed, 60, None).1.operations();
        for at in 1..=operations {
            let (model, disk) = run(seed, 60, Some(at));
            for luck in 0..4 {
                let disk = disk.after_power_loss(&mut Generator::new(luck));
                let what = format!("seed {seed}, power lost in operation {at}, luck {luck}");
                let (_, contents) = open(&disk).unwrap_or_else(|error| panic!("{what}: {error}"));
                model.clone().check(&contents, &what);
            }
        }
    }
}

#[test]
fn a_log_survives_a_thousand_power_losses_in_a_row_some_of_them_while_it_recovers() {
    let mut generator = Generator::new(77);
    let mut model = Model::new();
    let mut disk = SimDisk::default();
    for round in 0..1000 {
        disk.fail(Fault::DeadFrom(disk.operations() + 1 + generator.below(60)));
        // Dying while it opens is part of the test.
        if let Ok((mut log, contents)) = open(&disk) {
            model.check(&contents, &format!("round {round}"));
            while model.step(&mut log, &mut generator).is_ok() {}
        }
        disk = disk.after_power_loss(&mut generator);
    }
    let (_, contents) = open(&disk).unwrap();
    model.check(&contents, "at the end");
}

#[test]
fn a_log_reopened_a_hundred_times_after_random_operations_is_what_the_model_says() {
    let mut generator = Generator::new(5);
    let mut model = Model::new();
    let mut disk = SimDisk::default();
    for round in 0..100 {
        let (mut log, contents) = open(&disk).unwrap();
        model.check(&contents, &format!("round {round}"));
        for _ in 0..generator.below(30) {
            model.step(&mut log, &mut generator).unwrap();
        }
        drop(log);
        disk = disk.after_kill();
    }
}

#[test]
fn an_interrupted_founding_starts_over_and_ends_in_an_empty_log() {
    let operations = run(0, 0, None).1.operations();
    for at in 1..=operations {
        let (_, disk) = run(0, 0, Some(at));
        for luck in 0..8 {
            let (_, contents) = open(&disk.after_power_loss(&mut Generator::new(luck))).unwrap();
            Model::new().check(&contents, "after an interrupted founding");
        }
        open(&disk.after_kill()).unwrap();
    }
}
