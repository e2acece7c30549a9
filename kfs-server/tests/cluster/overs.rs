//! Files are written over in place, while everything is killed, and by one client after another.
use crate::cluster::{Cluster, content, expect_content, get, put};
use crate::killed::everybody_killed_and_started;
use bytes::Bytes;
use kfs_client::Writer;

const CHUNK_BYTES: usize = 64 << 20;

/// What a file holds: what was synced, and what may be there in its place.
struct Model {
    synced: Vec<u8>,
    now: Vec<u8>,
    /// Where something was written that no sync covers.
    later: Vec<(usize, Bytes)>,
    drawn: u64,
}

impl Model {
    fn of(data: &Bytes) -> Self {
        Self {
            synced: data.to_vec(),
            now: data.to_vec(),
            later: Vec::new(),
            drawn: 0,
        }
    }
    /// Somewhere in the file, and some of the time behind its end.
    fn draw(&mut self) -> (usize, Bytes) {
        self.drawn += 1;
        let numbers = content(1_000 + self.drawn, 16);
        let number = |at: usize| u64::from_le_bytes(numbers[at..at + 8].try_into().unwrap());
        let lens = [1, 100, 4_096, 65_536, 100_000];
        let most = lens[usize::try_from(number(8) % 5).unwrap()];
        let len = 1 + usize::try_from(number(8) / 5 % most).unwrap();
        let at = usize::try_from(number(0) % self.now.len() as u64).unwrap();
        (at, content(2_000 + self.drawn, len))
    }
    async fn write(&mut self, writer: &mut Writer) {
        let (at, data) = self.draw();
        writer.write_at(at as u64, data.clone()).await.unwrap();
        let end = at + data.len();
        self.now.resize(self.now.len().max(end), 0);
        self.now[at..end].copy_from_slice(&data);
        self.later.push((at, data));
    }
    async fn sync(&mut self, writer: &mut Writer) {
        writer.sync().await.unwrap();
        self.synced.clone_from(&self.now);
        self.later.clear();
    }
    /// Each byte is what was synced last, or one that was written there since.
    fn expect(&self, found: &[u8]) {
        assert!(found.len() >= self.synced.len());
        let wrong = |at: usize| found[at] != self.synced.get(at).copied().unwrap_or(0);
        let explained = |at: usize| {
            let mut later = self.later.iter();
            later.any(|(from, data)| data.get(at.wrapping_sub(*from)) == Some(&found[at]))
        };
        let bad = (0..found.len()).find(|at| wrong(*at) && !explained(*at));
        assert_eq!(bad, None, "a byte that nobody wrote there last");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_over_and_synced_is_there_though_everything_is_killed_again_and_again() {
    let mut cluster = Cluster::start(3);
    let kfs = cluster.client();
    // The second chunk is begun, so the first is full.
    let data = content(1, CHUNK_BYTES + 300_000);
    let mut model = Model::of(&data);
    put(&kfs, "/f", &data).await;
    let mut writer = kfs.append(b"/f").await.unwrap();
    for round in 0..4 {
        for nth in 0..30 {
            model.write(&mut writer).await;
            if nth % 7 == round {
                model.sync(&mut writer).await;
            }
        }
        everybody_killed_and_started(&mut cluster);
        let found = get(&cluster.client(), "/f").await.unwrap();
        model.expect(&found);
        // The same client goes on, and sends again what no sync covers.
        model.write(&mut writer).await;
        model.sync(&mut writer).await;
    }
    writer.close().await.unwrap();
    expect_content(&cluster.client(), "/f", &Bytes::from(model.now)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_write_over_a_file_in_turn_and_each_sees_what_the_one_before_has_closed() {
    let cluster = Cluster::start(3);
    let data = content(1, CHUNK_BYTES + 300_000);
    let mut model = Model::of(&data);
    put(&cluster.client(), "/f", &data).await;
    for _ in 0..3 {
        let kfs = cluster.client();
        let mut writer = kfs.append(b"/f").await.unwrap();
        for _ in 0..6 {
            model.write(&mut writer).await;
        }
        writer.close().await.unwrap();
        let now = Bytes::from(model.now.clone());
        expect_content(&cluster.client(), "/f", &now).await;
    }
}
