//! Which error number a program sees for each status: the one table of it.
use crate::error::Error;
use fuser::Errno;
use kfs_core::wire::Status;

/// What a program sees of a call that failed.
pub(super) fn of(error: &Error) -> Errno {
    number(error.status)
}

/// As [`of`], for what was asked by its id: a thing that is gone was found under a name before, so the kernel is told
/// that the name may be out of date. It looks the name up once more then.
pub(super) fn of_id(error: &Error) -> Errno {
    match error.status {
        Status::NotFound => Errno::ESTALE,
        status => number(status),
    }
}

const fn number(status: Status) -> Errno {
    match status {
        Status::NotFound => Errno::ENOENT,
        Status::Exists => Errno::EEXIST,
        Status::NotADirectory => Errno::ENOTDIR,
        Status::IsADirectory => Errno::EISDIR,
        Status::NotEmpty => Errno::ENOTEMPTY,
        // The kernel gives no name with a slash, none that is empty, and neither `.` nor `..`.
        Status::BadName => Errno::ENAMETOOLONG,
        Status::BadRequest => Errno::EINVAL,
        Status::Permission => Errno::EACCES,
        Status::Overwrite => Errno::EOPNOTSUPP,
        Status::NoRoom => Errno::ENOSPC,
        Status::Busy => Errno::EBUSY,
        Status::ReadOnly => Errno::EROFS,
        Status::NoServers
        | Status::ChainBroken
        | Status::NotServed
        | Status::Corrupt
        | Status::NoReplica
        | Status::SessionExpired
        | Status::Unreachable
        | Status::TimedOut
        | Status::Protocol
        | Status::Unknown
        | Status::LocalIo => Errno::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_an_error_number_and_those_that_programs_look_at_have_their_own() {
        for status in Status::ALL {
            assert!(number(status).code() > 0, "{status:?}");
        }
        for (status, errno) in [
            (Status::NotFound, Errno::ENOENT),
            (Status::Exists, Errno::EEXIST),
            (Status::NotEmpty, Errno::ENOTEMPTY),
            (Status::NoRoom, Errno::ENOSPC),
            (Status::BadName, Errno::ENAMETOOLONG),
            (Status::Corrupt, Errno::EIO),
            (Status::TimedOut, Errno::EIO),
            (Status::Overwrite, Errno::EOPNOTSUPP),
            (Status::ReadOnly, Errno::EROFS),
        ] {
            let error = Error::new(status, "it failed");
            assert_eq!(of(&error).code(), errno.code(), "{status:?}");
        }
        let gone = Error::new(Status::NotFound, "it is gone");
        assert_eq!(of_id(&gone).code(), Errno::ESTALE.code());
        let full = Error::new(Status::NoRoom, "it is full");
        assert_eq!(of_id(&full).code(), Errno::ENOSPC.code());
    }
}
