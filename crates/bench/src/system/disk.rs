use std::{
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    path::Path,
    time::{Duration, Instant},
};

/// What is written before each flush: a page, as `PostgreSQL` writes its WAL.
const PAGE: [u8; 8192] = [0x5a; 8192];
/// The file is written over in turns, as segments of the WAL are: it grows once, at the start.
const PAGES: u64 = 128;
/// How many flushes are timed.
const SAMPLES: usize = 300;

/// The median time of writing 8 KiB into a file of the folder and flushing it by fdatasync: what a
/// commit waits for at least.
pub fn fdatasync_median(folder: &Path) -> std::io::Result<Duration> {
    let path = folder.join("fdatasync.tmp");
    let mut file = File::create(&path)?;
    for _ in 0..PAGES {
        file.write_all(&PAGE)?;
    }
    file.sync_all()?;
    let times = times(&mut file);
    fs::remove_file(&path)?;
    Ok(median(times?))
}

fn times(file: &mut File) -> std::io::Result<Vec<Duration>> {
    (0..SAMPLES)
        .map(|sample| {
            let page = u64::try_from(sample).unwrap_or_default() % PAGES;
            let started = Instant::now();
            file.seek(SeekFrom::Start(page * 8192))?;
            file.write_all(&PAGE)?;
            // Rust's sync_data is fdatasync on Linux.
            file.sync_data()?;
            Ok(started.elapsed())
        })
        .collect()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        let times = [9, 1, 5].map(Duration::from_millis).to_vec();
        assert_eq!(median(times), Duration::from_millis(5));
        assert_eq!(median(Vec::new()), Duration::ZERO);
    }
}
