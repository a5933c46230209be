import Glibc

/// A system call failed: which one, on what, with which errno. The text names the remedy where one is known.
/// Errors that can only be our own bug (EBADF, EFAULT) trap instead: see `check`.
package struct SystemError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The positive errno value.
    package var errno: Int32
    /// The system call, as in its manual page.
    package var call: String
    /// What it was asked to work on: a path, an address, a worker.
    package var subject: String

    package init(errno: Int32, call: String, subject: String) {
        self.errno = errno
        self.call = call
        self.subject = subject
    }

    package var description: String {
        let text = "\(call) \(subject): \(SystemError.text(errno))"
        guard let remedy else { return text }
        return "\(text) (\(remedy))"
    }

    /// What an operator can do about it, if that follows from the error alone.
    package var remedy: String? {
        switch errno {
        case EMFILE: "raise LimitNOFILE= or ulimit -n"
        case ENFILE: "raise fs.file-max"
        case ENOSPC, EDQUOT: "free disk space"
        case EROFS: "the file system is read-only"
        case EACCES, EPERM: "check owner and permissions"
        case ENOMEM: "free memory or raise MemoryMax="
        default: nil
        }
    }

    /// The text of strerror(3), without its static buffer.
    package static func text(_ errno: Int32) -> String {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: 256) { buffer in
            guard let base = buffer.baseAddress, strerror_r(errno, base, buffer.count) == 0 else {
                return "errno \(errno)"
            }
            return String(cString: base)
        }
    }
}

/// Turns the `-errno` convention of CLinux into a typed error.
/// - Throws: `result` is negative. EBADF and EFAULT trap: they are ours.
@discardableResult
package func check<Result: SignedInteger>(
    _ result: Result, _ call: @autoclosure () -> String, _ subject: @autoclosure () -> String
) throws(SystemError) -> Result {
    if result >= 0 { return result }
    let code = Int32(-result)
    precondition(code != EBADF && code != EFAULT, "\(call()) \(subject()): \(SystemError.text(code)) is a bug of ours")
    throw SystemError(errno: code, call: call(), subject: subject())
}

/// Runs a libc call that answers -1 and sets errno; repeats it when a signal interrupted it.
/// - Throws: the call failed otherwise than by a signal. EBADF and EFAULT trap: they are ours.
@discardableResult
package func call<Result: SignedInteger>(
    _ name: String, _ subject: @autoclosure () -> String, _ body: () -> Result
) throws(SystemError) -> Result {
    while true {
        let result = body()
        if result >= 0 { return result }
        let code = errno
        if code == EINTR { continue }
        precondition(
            code != EBADF && code != EFAULT, "\(name) \(subject()): \(SystemError.text(code)) is a bug of ours")
        throw SystemError(errno: code, call: name, subject: subject())
    }
}
