// kernels/comm/tcp.cpp -- POSIX sockets.
#include "kernels/comm/tcp.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

#include "kernels/base/check.h"

namespace sluice {
namespace {

using Clock = std::chrono::steady_clock;

int checked(int result, const char* what) {
  SLUICE_CHECK(result >= 0, what, ": ", std::strerror(errno));
  return result;
}

// The addresses of a name.
struct Addresses {
  Addresses(const std::string& host, int port) {
    addrinfo hints = {};
    hints.ai_family = AF_INET;
    hints.ai_socktype = SOCK_STREAM;
    const int e = getaddrinfo(host.c_str(), cat(port).c_str(), &hints, &list);
    SLUICE_CHECK(e == 0, host, ": ", gai_strerror(e));
  }
  ~Addresses() { freeaddrinfo(list); }
  addrinfo* list = nullptr;
};

Socket try_connect(const std::string& host, int port) {
  const Addresses addresses(host, port);
  for (const addrinfo* a = addresses.list; a; a = a->ai_next) {
    Socket s(checked(::socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, 0), "socket"));
    const timeval patience = {3, 0};  // for networks that swallow packets
    setsockopt(s.fd(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (::connect(s.fd(), a->ai_addr, a->ai_addrlen) == 0) {
      const int on = 1;
      const timeval none = {0, 0};
      setsockopt(s.fd(), SOL_SOCKET, SO_SNDTIMEO, &none, sizeof none);
      setsockopt(s.fd(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      return s;
    }
  }
  return Socket();
}

}  // namespace

Socket::~Socket() {
  close();
}

Socket& Socket::operator=(Socket&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

void Socket::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

void Socket::send_all(const void* data, size_t bytes) {
  const char* p = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = ::send(fd_, p, bytes, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    SLUICE_CHECK(n > 0, "sending to a rank: ", std::strerror(errno));
    p += n;
    bytes -= size_t(n);
  }
}

void Socket::receive_exactly(void* data, size_t bytes) {
  char* p = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t n = ::recv(fd_, p, bytes, 0);
    if (n < 0 && errno == EINTR) continue;
    SLUICE_CHECK(n > 0, "receiving from a rank: ", n == 0 ? "it is gone" : std::strerror(errno));
    p += n;
    bytes -= size_t(n);
  }
}

void Socket::send_some(std::string& from) {
  while (!from.empty()) {
    const ssize_t n = ::send(fd_, from.data(), from.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    from.erase(0, size_t(n));
  }
}

bool Socket::receive_some(std::string& into) {
  char buffer[4096];
  while (true) {
    const ssize_t n = ::recv(fd_, buffer, sizeof buffer, MSG_DONTWAIT);
    if (n > 0)
      into.append(buffer, size_t(n));
    else if (n < 0 && errno == EINTR)
      continue;
    else
      return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
  }
}

Listener::Listener(int port)
    : socket_(checked(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket")) {
  const int on = 1;
  setsockopt(socket_.fd(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in a = {};
  a.sin_family = AF_INET;
  a.sin_addr.s_addr = htonl(INADDR_ANY);
  a.sin_port = htons(uint16_t(port));
  SLUICE_CHECK(::bind(socket_.fd(), reinterpret_cast<sockaddr*>(&a), sizeof a) == 0, "port ", port,
               ": ", std::strerror(errno));
  checked(::listen(socket_.fd(), 4096), "listen");
  socklen_t length = sizeof a;
  checked(::getsockname(socket_.fd(), reinterpret_cast<sockaddr*>(&a), &length), "getsockname");
  port_ = ntohs(a.sin_port);
}

Socket Listener::accept(double seconds) {
  pollfd p = {socket_.fd(), POLLIN, 0};
  const int ready = ::poll(&p, 1, int(seconds * 1e3));
  SLUICE_CHECK(ready > 0, "no rank came to port ", port_, " in ", seconds, " s");
  Socket s(checked(::accept4(socket_.fd(), nullptr, nullptr, SOCK_CLOEXEC), "accept"));
  const int on = 1;
  setsockopt(s.fd(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return s;
}

Socket connect_to(const std::string& host, int port, double seconds) {
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  while (true) {
    if (Socket s = try_connect(host, port)) return s;
    SLUICE_CHECK(Clock::now() < end, "nobody listens at ", host, ":", port, " after ", seconds,
                 " s");
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

std::vector<std::string> own_addresses() {
  std::vector<std::string> found;
  ifaddrs* list = nullptr;
  checked(getifaddrs(&list), "getifaddrs");
  for (const ifaddrs* i = list; i; i = i->ifa_next) {
    if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET) continue;
    char text[INET_ADDRSTRLEN];
    inet_ntop(AF_INET, &reinterpret_cast<sockaddr_in*>(i->ifa_addr)->sin_addr, text, sizeof text);
    const bool loopback = std::strncmp(text, "127.", 4) == 0;
    found.insert(loopback ? found.end() : found.begin(), text);
  }
  freeifaddrs(list);
  return found;
}

}  // namespace sluice
