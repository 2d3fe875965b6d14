//! Passwords from a file or from the environment, so that they stand in no process list.

use std::path::Path;

use secrecy::SecretString;

use super::exit::Usage;

/// The password in `file`, or else in this variable.
pub fn read(file: Option<&Path>, variable: &str) -> Result<Option<SecretString>, Usage> {
    let Some(path) = file else {
        return match std::env::var(variable) {
            Ok(password) => Ok(Some(password.into())),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => {
                Err(Usage(format!("{variable} is not valid UTF-8")))
            }
        };
    };
    let text = std::fs::read_to_string(path).map_err(|error| {
        Usage(format!("the password file {} cannot be read: {error}", path.display()))
    })?;
    // Editors end a file with a newline; passwords do not.
    Ok(Some(text.trim_end_matches(['\r', '\n']).into()))
}
