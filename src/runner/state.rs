//! Opens the state of a mirror that this process works on.

use std::sync::Arc;

use crate::checkpoint::{Before, Bounds, Checkpoints, StateError};
use crate::mirror::Mirror;
use crate::tree::MirrorError;

/// Opens the state of a mirror that this process works on, and logs what was wrong with it. If
/// another process has taken the mirror over, that is the error.
pub fn open_state<E>(mirror: &Mirror, bounds: Bounds) -> Result<Checkpoints, E>
where
    E: From<MirrorError> + From<StateError>,
{
    let open = || {
        let before = if mirror.has_past()? { Before::Something } else { Before::Nothing };
        let (path, clock) = (mirror.state_path(), Arc::clone(mirror.clock()));
        Ok::<_, E>(Checkpoints::open_with(&path, bounds, clock, before, mirror.desk())?)
    };
    let opened = open().map_err(|error| match mirror.check_epoch() {
        Err(taken_over) => taken_over.into(),
        Ok(()) => error,
    })?;
    if let Some(damaged) = opened.damaged {
        tracing::warn!("{damaged}");
    }
    Ok(opened.state)
}
