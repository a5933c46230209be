import BrokerService
import Glibc
import LinuxSystem
import Logging
import RemotingTransport
import WorkerKit

/// Clients keep their connections over a restart of this worker, and notice a pause.
extension BrokerStoreWorker {
    /// Half of the descriptors a process may have: they must find room in the supervisor, too.
    private static var handOverMax: Int {
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        return Int(clamping: limit.rlim_cur) / 2 - 64
    }

    func adopt(connections: [Int32]) { adopted += connections }

    /// Those that are sockets; the other descriptor is what their clients have said.
    func serveAdopted() {
        let sockets = adopted.filter { ListenSocket.isSocket($0) }
        for other in Set(adopted).subtracting(sockets) {
            do throws(SystemError) {
                broker.expect(clients: try SharedSegment.contents(of: Descriptor(owning: other)))
            } catch {
                environment.logger.error("what clients said before the restart is lost: \(error)")
            }
        }
        for socket in sockets { server.adopt(connection: socket) }
        if !sockets.isEmpty {
            environment.logger.info("\(sockets.count) connections taken over from before the restart")
        }
        adopted = []
    }

    /// To be called when all answers are written and nothing more is read.
    func handOverConnections() {
        var clients = ClientHandOver()
        var connections = server.handOver(atMost: Self.handOverMax) { clients.add($0) }
        if let bytes = clients.bytes {
            do throws(SystemError) {
                connections.append(try SharedSegment.createDescriptor(name: "apus-clients", contents: bytes).release())
            } catch {
                environment.logger.error("clients have to register themselves again: \(error)")
            }
        }
        environment.handOver(connections: connections)
    }
}
