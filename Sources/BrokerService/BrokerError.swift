package import Claims
package import MessageStore

/// Why a broker cannot start; the text names cause and remedy.
package enum BrokerError: Error, CustomStringConvertible {
    case configuration(String)
    case store(StoreError)
    /// Who has which popped message cannot be read.
    case claims(ClaimError)
    /// A file of the configuration cannot be read, nor its backup.
    case metadata(path: String, reason: String)
    /// A file of the configuration cannot be written, which a start depends on.
    case notKept(path: String, reason: String)

    package var description: String {
        switch self {
        case .configuration(let text): text
        case .store(let error): "\(error)"
        case .claims(let error): "\(error)"
        case .metadata(let path, let reason):
            "\(path) and its .bak are unusable: \(reason); restore one of them, or remove both to begin without"
        case .notKept(let path, let reason):
            "\(path) cannot be written: \(reason); the start needs it to take over what RocketMQ's clients have "
                + "popped: free the disk, or look at it"
        }
    }
}
