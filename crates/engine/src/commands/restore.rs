use crate::{cli::RestoreArgs, error::Error, instance::Instance};
pub(crate) fn run(_: &Instance, _: bool, _: &RestoreArgs) -> Result<(), Error> {
    Ok(())
}
