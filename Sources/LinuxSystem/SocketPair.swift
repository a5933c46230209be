import CLinux
import Glibc

/// Two connected unix sockets, and messages with descriptors over them.
package struct SocketPair: ~Copyable {
    /// Either end; both are alike.
    package var first: Descriptor
    /// The other end.
    package var second: Descriptor

    /// Both ends block and are close-on-exec.
    /// - sequencedPackets: messages keep their borders (control channels); a byte stream otherwise (peer links).
    /// - Throws: there is no free descriptor.
    package static func create(sequencedPackets: Bool) throws(SystemError) -> SocketPair {
        let type = (sequencedPackets ? Int32(SOCK_SEQPACKET.rawValue) : Int32(SOCK_STREAM.rawValue))
        var ends: (Int32, Int32) = (-1, -1)
        try call("socketpair", "unix") {
            withUnsafeMutableBytes(of: &ends) {
                socketpair(AF_UNIX, type | Int32(SOCK_CLOEXEC.rawValue), 0, $0.bindMemory(to: Int32.self).baseAddress)
            }
        }
        return SocketPair(first: Descriptor(owning: ends.0), second: Descriptor(owning: ends.1))
    }

    /// Both ends in classes, so that they can be kept and shared.
    package consuming func ends() -> (first: SharedDescriptor, second: SharedDescriptor) {
        (SharedDescriptor(first), SharedDescriptor(second))
    }
}

/// Messages with open descriptors attached (SCM_RIGHTS), over Unix domain sockets.
package enum DescriptorPassing {
    /// The most descriptors one message carries.
    package static let descriptorsMax = Int(APUS_DESCRIPTORS_MAX)

    /// Sends one message with copies of `descriptors`.
    /// - Throws: EAGAIN (only with `wait` false) when the socket is full; EPIPE or ECONNRESET when the other side has
    ///   closed.
    package static func send(
        _ bytes: UnsafeRawBufferPointer, descriptors: [Int32] = [], to socket: Int32, wait: Bool
    ) throws(SystemError) {
        guard let base = bytes.baseAddress else { preconditionFailure("an empty message would look like the end") }
        let flags = wait ? 0 : Int32(MSG_DONTWAIT)
        try check(
            apus_send_descriptors(socket, base, bytes.count, descriptors, descriptors.count, flags), "sendmsg",
            "control channel")
    }

    /// Receives one message into `buffer`. nil: the other side closed. Received descriptors are the caller's to close.
    ///
    /// A message whose descriptors find no free ones comes without them. The kernel drops descriptors that it cannot
    /// pass on. So a message is looked at first and taken off the socket when its descriptors are there.
    /// - Parameter makeRoom: asked for a free descriptor, over and over, while there are not enough; false: there will
    ///   be none.
    /// - Throws: EAGAIN (only with `wait` false) when there is no message; ECONNRESET when the other side has ended.
    package static func receive(
        into buffer: UnsafeMutableRawBufferPointer, from socket: Int32, wait: Bool,
        makeRoom: () -> Bool = { false }
    ) throws(SystemError) -> (count: Int, descriptors: [Int32])? {
        guard let base = buffer.baseAddress else { preconditionFailure("no buffer to receive into") }
        let peek = Int32(MSG_PEEK) | (wait ? 0 : Int32(MSG_DONTWAIT))
        var received = 0
        var descriptorCount = 0
        let descriptors = [Int32](unsafeUninitializedCapacity: descriptorsMax) { slots, initialized in
            guard let first = slots.baseAddress else { return }
            descriptorCount = descriptorsMax
            repeat {
                descriptorCount = descriptorsMax
                received = apus_receive_descriptors(socket, base, buffer.count, first, &descriptorCount, peek)
            } while received == -Int(EMFILE) && makeRoom()
            initialized = received >= 0 ? descriptorCount : 0
        }
        // Off the socket, which it still lies in: what came with it has been copied, or is given up.
        if received > 0 || received == -Int(EMFILE) || received == -Int(EMSGSIZE) {
            let taken = recv(socket, base, buffer.count, Int32(MSG_DONTWAIT))
            if received == -Int(EMFILE) { received = taken }
        }
        let count = try check(received, "recvmsg", "control channel")
        if count == 0 && descriptors.isEmpty { return nil }
        return (count, descriptors)
    }
}
