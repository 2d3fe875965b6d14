//! Compares a tree with its inventory byte for byte, which shows that a copy of a mirror at rest is
//! intact.

use crate::mirror::collection::Collection;
use crate::tree::MirrorError;
use crate::tree::inventory::State;
use crate::tree::inventory::resolve::{Trust, found_in};

impl Collection {
    /// Whether the inventory was closed by the run that had this token, covers every document, and
    /// lists exactly what the collection's folder holds. Reads every byte.
    pub fn agrees_with_inventory(&self, token: &str) -> Result<bool, MirrorError> {
        let Some(inventory) = self.inventory()? else { return Ok(false) };
        let is_closed = inventory.closed.as_deref() == Some(token);
        if !is_closed || !inventory.complete || inventory.damage.is_some() {
            return Ok(false);
        }
        let failed = |error| MirrorError::io("sort the inventory of", self.folder.path(), error);
        let mut listed = 0;
        for recorded in inventory.iter().map_err(failed)? {
            let recorded = recorded.map_err(failed)?;
            let found = found_in(&self.folder, &recorded.name, Trust::Bytes)?;
            let [state] = &recorded.states[..] else { return Ok(false) };
            if *state == State::Unknown || !state.fits(found.as_ref()) {
                return Ok(false);
            }
            listed += u64::from(found.is_some());
        }
        let mut standing = 0;
        for name in self.folder.each_name()? {
            standing += u64::from(name?.is_ok());
        }
        Ok(listed == standing)
    }
}
