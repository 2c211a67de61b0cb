use std::path::Path;

use anyhow::Context;
use tokio::fs;

use super::Report;

impl Report {
    /// Writes it into a folder, as `NAME.md` and `NAME.json`.
    pub async fn write(&self, folder: &Path, name: &str) -> anyhow::Result<()> {
        let json = serde_json::to_string_pretty(self)?;
        for (ending, text) in [("md", self.markdown()), ("json", json)] {
            let path = folder.join(format!("{name}.{ending}"));
            let written = fs::write(&path, text).await;
            written.with_context(|| format!("{} cannot be written", path.display()))?;
        }
        Ok(())
    }
}
