import LinuxSystem
package import RemotingProtocol

/// What can go wrong between here and a peer.
package enum RemotingError: Error, Sendable, CustomStringConvertible {
    /// The connection could not be made; the peer may not run or not be reachable.
    case connectFailed(address: String, cause: String)
    /// The connection ended before the answer came; whether the request was carried out is not known.
    case connectionClosed(peer: String, reason: String)
    /// No answer in time; whether the request was carried out is not known.
    case timedOut(peer: String, request: Int32, milliseconds: Int64)
    /// The server takes no more of this kind; the text states why.
    case connectionRefused(String)
    /// The peer sent something that is not a remoting frame.
    case badFrame(peer: String, RemotingDecodeError)
    /// The peer answered with an error code.
    case refused(request: Int32, code: Int32, remark: String?)

    package var description: String {
        switch self {
        case .connectFailed(let address, let cause):
            "cannot connect to \(address): \(cause); check that it runs and is reachable from here"
        case .connectionClosed(let peer, let reason): "the connection to \(peer) ended: \(reason)"
        case .timedOut(let peer, let request, let milliseconds):
            "\(peer) did not answer request \(request) within \(milliseconds) ms"
        case .connectionRefused(let reason): reason
        case .badFrame(let peer, let error): "\(peer) sent what is no remoting frame: \(error)"
        case .refused(let request, let code, let remark):
            "request \(request) was answered with code \(code): "
                + PlainText.escaped(remark ?? "no remark", bytesMax: 4096)
        }
    }
}
