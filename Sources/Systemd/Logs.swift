package import Logging

/// Where log lines go: the journal when it is there, stderr otherwise.
package enum Logs {
    package static func bootstrap(worker: String, level: Logger.Level?) {
    }
}
