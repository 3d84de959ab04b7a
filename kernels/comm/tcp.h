// kernels/comm/tcp.h -- sockets between ranks: how they find each other and how they are watched.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sluice {

// One end of a connection. Errors of the network are Errors; a peer that is gone is one too.
class Socket {
 public:
  Socket() = default;
  explicit Socket(int fd) : fd_(fd) {}
  ~Socket();
  Socket(Socket&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  Socket& operator=(Socket&& other) noexcept;

  int fd() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  void close();
  void send_all(const void* data, size_t bytes);
  void receive_exactly(void* data, size_t bytes);
  // Sends and takes away what can be sent without waiting. A peer that is gone is not reported.
  void send_some(std::string& from);
  // Appends what has come; false if the peer is gone. Does not wait.
  bool receive_some(std::string& into);

 private:
  int fd_ = -1;
};

class Listener {
 public:
  explicit Listener(int port);  // 0: any that is free
  int fd() const { return socket_.fd(); }
  int port() const { return port_; }
  Socket accept(double seconds);  // an Error if nobody comes in time

 private:
  Socket socket_;
  int port_ = 0;
};

// Tries until somebody listens there; an Error after that many seconds.
Socket connect_to(const std::string& host, int port, double seconds);

// Names under which other machines may reach this one: IPv4 addresses, the loopback last.
std::vector<std::string> own_addresses();

}  // namespace sluice
