import MessageModel
import RemotingProtocol

extension RemotingServer.Piece: CustomStringConvertible {
    /// For a line of the log.
    package var description: String {
        switch self {
        case .read(let code, let peer): "requests of \(peer.text), the last of code \(code),"
        case .endOfTick: "the end of a tick (writing what has come, waking reads that wait)"
        case .flush: "sending answers"
        }
    }
}
