import Glibc
import Synchronization

/// Names of hosts.
package enum HostName {
    /// Why a name has no address.
    package struct Failure: Error, Hashable, Sendable, CustomStringConvertible {
        package let description: String
        init(_ description: String) { self.description = description }
    }

    /// The first IPv4 address a name has, in numbers; one in numbers already is answered as it is.
    ///
    /// Asked on a thread of its own: the resolver may wait for name servers much longer than the caller can. The caller
    /// waits for at most `timeoutMilliseconds`; the thread, which cannot be cancelled, then ends by itself.
    /// - Throws: `Failure` when there is none, or no answer in that time.
    package static func ipv4(of name: String, timeoutMilliseconds: Int = 3000) throws(Failure) -> String {
        var address = in_addr()
        if inet_pton(AF_INET, name, &address) == 1 { return name }
        let question = Question(name)
        var thread = pthread_t()
        let failure = pthread_create(
            &thread, nil,
            { context in
                guard let context else { return nil }
                setCurrentThreadName("host-name")
                Unmanaged<Question>.fromOpaque(context).takeRetainedValue().ask()
                return nil
            }, Unmanaged.passRetained(question).toOpaque())
        guard failure == 0 else {
            Unmanaged.passUnretained(question).release()
            throw Failure("\(name) cannot be looked up: \(SystemError.text(failure))")
        }
        pthread_detach(thread)
        var waited = 0
        while waited < timeoutMilliseconds {
            if let answer = question.answer.withLock({ $0 }) {
                switch answer {
                case .success(let address): return address
                case .failure(let error): throw error
                }
            }
            usleep(5_000)
            waited += 5
        }
        throw Failure(
            "\(name) has no address: the machine's resolver has not answered for \(timeoutMilliseconds / 1000) s")
    }

    private final class Question: Sendable {
        let name: String
        let answer = Mutex<Result<String, Failure>?>(nil)

        init(_ name: String) { self.name = name }

        func ask() {
            let result: Result<String, Failure>
            do throws(Failure) { result = .success(try lookUp()) } catch { result = .failure(error) }
            answer.withLock { $0 = result }
        }

        private func lookUp() throws(Failure) -> String {
            var hints = addrinfo()
            hints.ai_family = AF_INET
            hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
            var found: UnsafeMutablePointer<addrinfo>?
            let error = getaddrinfo(name, nil, &hints, &found)
            guard error == 0, let found else {
                throw Failure("\(name) has no IPv4 address: \(String(cString: gai_strerror(error)))")
            }
            defer { freeaddrinfo(found) }
            guard let address = found.pointee.ai_addr else { throw Failure("\(name) has no IPv4 address") }
            // sockaddr_in: family and port (2 bytes each), then the address.
            return UnsafeRawBufferPointer(start: address, count: 8)[4..<8].map(String.init).joined(separator: ".")
        }
    }
}
