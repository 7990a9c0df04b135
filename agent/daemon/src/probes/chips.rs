//! Apple's chips as data: memory bandwidth by chip and GPU cores.
//!
//! Owns the table, from Apple's published figures. A Max chip comes in two widths of memory that only its GPU cores tell apart.
//! Refuses chips it does not know: those are measured, not guessed.

/// One row: the chip, the least GPU cores it applies from, and gigabytes per second.
struct Row(&'static str, u32, u32);

/// Per chip, the row with more cores first.
const BANDWIDTH: [Row; 23] = [
    Row("M1", 0, 68),
    Row("M1 Pro", 0, 200),
    Row("M1 Max", 0, 400),
    Row("M1 Ultra", 0, 800),
    Row("M2", 0, 100),
    Row("M2 Pro", 0, 200),
    Row("M2 Max", 0, 400),
    Row("M2 Ultra", 0, 800),
    Row("M3", 0, 100),
    Row("M3 Pro", 0, 150),
    Row("M3 Max", 40, 400),
    Row("M3 Max", 0, 300),
    Row("M3 Ultra", 0, 819),
    Row("M4", 0, 120),
    Row("M4 Pro", 0, 273),
    Row("M4 Max", 40, 546),
    Row("M4 Max", 0, 410),
    Row("M5", 0, 153),
    Row("M5 Pro", 0, 307),
    Row("M5 Max", 40, 614),
    Row("M5 Max", 0, 460),
    // What virtual machines on these chips call themselves.
    Row("M1 (Virtual)", 0, 68),
    Row("M2 (Virtual)", 0, 100),
];

/// Prefill speed by generation: effective tera-operations per second and GPU core, from published measurements of mlx-lm (M1
/// 1.5 with 8 cores, M1 Max 4.9 to 6.6 with 32, M2 Ultra 16 with 76, M3 Max 10 to 11 with 40, M4 Max 13 with 40). No figure for
/// M5 is published that counts its neural accelerators in; M4's is its floor.
const TERAOPS_PER_CORE: [(&str, f64); 5] =
    [("M1", 0.18), ("M2", 0.21), ("M3", 0.26), ("M4", 0.325), ("M5", 0.325)];

/// Memory bandwidth in bytes per second; `None` for a chip that is not in the table.
pub(super) fn bandwidth_bytes_per_s(chip: &str, gpu_cores: u32) -> Option<f64> {
    let name = name(chip)?;
    let row = BANDWIDTH.iter().find(|Row(chip, cores, _)| *chip == name && gpu_cores >= *cores)?;
    Some(f64::from(row.2) * 1e9)
}

/// Operations per second in prefill; `None` for a chip or a number of cores that is not known.
pub(super) fn prefill_ops_per_s(chip: &str, gpu_cores: u32) -> Option<f64> {
    let generation = name(chip)?.split(' ').next()?;
    let (_, teraops) = TERAOPS_PER_CORE.iter().find(|(name, _)| *name == generation)?;
    (gpu_cores > 0).then(|| f64::from(gpu_cores) * teraops * 1e12)
}

/// `Apple M4 Max` → `M4 Max`.
fn name(chip: &str) -> Option<&str> {
    chip.trim().strip_prefix("Apple ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bandwidth_follows_the_chip() {
        for (chip, cores, gigabytes) in [
            ("M1", 8, 68.0),
            ("M1 Ultra", 64, 800.0),
            ("M3 Pro", 18, 150.0),
            ("M3 Ultra", 80, 819.0),
            ("M4 Pro", 20, 273.0),
        ] {
            assert_eq!(
                bandwidth_bytes_per_s(&format!("Apple {chip}"), cores),
                Some(gigabytes * 1e9),
                "{chip}"
            );
        }
    }

    #[test]
    fn a_max_chip_with_fewer_cores_has_the_narrower_memory() {
        for (chip, few, many) in
            [("M3 Max", 300.0, 400.0), ("M4 Max", 410.0, 546.0), ("M5 Max", 460.0, 614.0)]
        {
            let chip = format!("Apple {chip}");
            assert_eq!(bandwidth_bytes_per_s(&chip, 32), Some(few * 1e9), "{chip}");
            assert_eq!(bandwidth_bytes_per_s(&chip, 40), Some(many * 1e9), "{chip}");
            assert_eq!(
                bandwidth_bytes_per_s(&chip, 0),
                Some(few * 1e9),
                "{chip}: unknown cores are the fewest"
            );
        }
    }

    #[test]
    fn chips_that_are_not_in_the_table_are_not_guessed() {
        for chip in ["", "Apple", "Apple M9", "Apple M4 Ultra", "AMD EPYC", "Apple M1 Maxi", "M1"] {
            assert_eq!(bandwidth_bytes_per_s(chip, 40), None, "{chip:?}");
        }
        assert_eq!(prefill_ops_per_s("AMD EPYC", 40), None);
        assert_eq!(prefill_ops_per_s("Apple M4", 0), None);
    }

    #[test]
    fn prefill_grows_with_the_cores() {
        let ops = |chip: &str, cores| prefill_ops_per_s(&format!("Apple {chip}"), cores).expect("known");
        assert!((ops("M1", 8) / 1e12 - 1.44).abs() < 1e-9);
        assert!(ops("M2 Ultra", 76) > ops("M3 Max", 40) && ops("M4 Max", 40) > ops("M4 Max", 32));
    }

    #[test]
    fn every_chip_of_the_table_has_a_prefill_speed() {
        for Row(chip, ..) in &BANDWIDTH {
            assert!(prefill_ops_per_s(&format!("Apple {chip}"), 8).is_some(), "{chip}");
        }
    }
}
