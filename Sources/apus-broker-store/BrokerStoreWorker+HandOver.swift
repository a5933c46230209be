import BrokerService
import Glibc
import LinuxSystem
import Logging
import RemotingTransport
import WorkerKit
import WorkerProtocol

/// Clients keep their connections over a restart of this worker, and notice a pause.
extension BrokerStoreWorker {
    func adopt(connections: [Int32]) { adopted += connections }

    /// Those that are sockets; the other descriptor has what their clients reported.
    func serveAdopted() {
        let sockets = adopted.filter { ListenSocket.isSocket($0) }
        for other in Set(adopted).subtracting(sockets) {
            do throws(SystemError) {
                broker.expect(clients: try SharedSegment.contents(of: Descriptor(owning: other)))
            } catch {
                environment.logger.error(
                    """
                    the heartbeats of clients from before the restart are lost, clients register with their next ones: \
                    \(error)
                    """
                )
            }
        }
        for socket in sockets { server.adopt(connection: socket) }
        if !sockets.isEmpty {
            environment.logger.info("\(counted(sockets.count, "connection")) taken over from before the restart")
        }
        adopted = []
    }

    /// To be called when all answers are written and nothing more is read.
    func handOverConnections() {
        var clients = ClientHandOver()
        var connections = server.handOver(
            atMost: environment.connectionsHandedOverMax, each: { clients.add($0) })
        if let bytes = clients.bytes {
            do throws(SystemError) {
                connections.append(try SharedSegment.createDescriptor(name: "apus-clients", contents: bytes).release())
            } catch {
                environment.logger.error(
                    "the heartbeats of clients are not handed over, clients register with their next ones: \(error)")
            }
        }
        environment.handOver(connections: connections)
    }
}
